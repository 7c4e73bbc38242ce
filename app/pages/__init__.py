"""The web pages, a client of the API like any other. Start with rendering.py."""

"""The web pages: HTML for people, made from the answers of the API. Start with rendering.py and forms.py."""

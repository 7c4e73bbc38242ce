"""The web pages: HTML for people, rendered from the API's responses. Start with rendering.py and forms.py."""

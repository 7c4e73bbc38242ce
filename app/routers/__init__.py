"""The API, one module per resource. Start with heroes.py, which shows every idiom."""

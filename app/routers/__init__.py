"""The API, one module per resource. Start with heroes.py, the shortest whole example."""

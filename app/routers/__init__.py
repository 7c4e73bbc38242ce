"""The API, one module a resource. Start with heroes.py, the shortest whole example."""

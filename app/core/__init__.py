"""Settings, database, errors, cryptography and logs: the foundation of every other package, without HTTP. Start with
settings.py.
"""

"""Settings, database, errors, cryptography and logs: what every package stands on. Knows no resource and no
HTTP; start with settings.py.
"""

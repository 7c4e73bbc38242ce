"""Accounts and passwords: rows, policy and hashing, and the tokens in mailed links. Start with users.py."""

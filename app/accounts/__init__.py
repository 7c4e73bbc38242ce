"""Accounts: users and roles, the password policy and hashing, and the tokens in mailed links. Start with users.py."""

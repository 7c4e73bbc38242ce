"""The external identity provider (OpenID Connect): its keys and tokens, signing in there, and the accounts of the
people who do. Start with provider.py.
"""

"""The external identity provider (OpenID Connect): its keys and tokens, signing in there, and the accounts it
vouches for. Start with provider.py.
"""

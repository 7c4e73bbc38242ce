"""The external identity provider (OpenID Connect): its tokens, signing in there, and the accounts of the
people who do. Start with provider.py.
"""

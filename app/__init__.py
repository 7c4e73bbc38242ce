"""Muster: the backend of a mobile app, with accounts, OAuth 2.0 tokens, a ledger, tasks, chat and jobs. Start with
main.py and services.py.
"""

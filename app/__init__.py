"""Muster: the backend of a mobile app, with accounts, OAuth 2.0 tokens, a ledger, tasks, chat and jobs. Start with
main.py and services.py.
"""

import gc

# New objects before the garbage collector runs. At 1,000 connections the default of 700 made it walk the requests in
# progress again and again, which took a tenth to a fifth of the throughput, and a tenth of the start.
gc.set_threshold(20_000, 20, 20)

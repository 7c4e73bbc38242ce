"""Background jobs: rows that a queue sends to a back end, and the handlers that run them. Start with queue.py."""

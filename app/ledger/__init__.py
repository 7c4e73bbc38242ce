"""The operations ledger: revisions, idempotency keys, CSV and statements. Start with operations.py."""

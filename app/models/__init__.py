"""SQLModel classes: tables and API schemas, one module per group; audit.py also writes. Start with hero.py."""

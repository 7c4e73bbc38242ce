"""SQLModel classes: tables and API schemas, one module per group of tables; audit.py also writes. Start with hero.py."""

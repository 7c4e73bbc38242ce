"""SQLModel classes: tables and API schemas, one module per group of tables. Start with hero.py."""

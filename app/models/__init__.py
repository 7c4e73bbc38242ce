"""SQLModel classes: tables and API schemas, one module a family. Start with hero.py."""

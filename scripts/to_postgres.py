"""What ./scripts/to_postgres runs: every row of a SQLite database into an empty PostgreSQL, in one transaction.

Both sides read and write through the tables of app/models, so amounts stay exact and times stay UTC. What is written to
SQLite meanwhile is not copied: stop the service first. With the same SECRET_KEYS everybody stays signed in.
"""

import os
import pkgutil
import sys
from importlib import import_module

from sqlalchemy import Connection, Engine, Table, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

import app.models
from app.core.dialects import make_engine
from app.core.settings import Settings, get_settings
from app.models.user import Role
from scripts.start import newest_revision, prepare, schema_revision

BATCH = 1000


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].startswith("postgres"):
        sys.exit("muster: scripts/to_postgres postgresql://user:password@host/database")
    source = get_settings()
    if not source.on_sqlite:
        sys.exit("muster: DATABASE_URL: it has to be the SQLite database to copy from")
    if schema_revision(source) != newest_revision():
        sys.exit("muster: DATABASE_URL: start this release once on it first, which brings its schema up to date")
    target = settings_of(sys.argv[1])
    prepare(target)
    try:
        copied = copy(make_engine(source), make_engine(target))
    except DBAPIError as error:
        sys.exit(f"muster: nothing was copied: {str(error.orig).strip().splitlines()[0]}")
    for name, count in copied.items():
        print(f"{count:>12,}  {name}")
    print("Copied. Set DATABASE_URL to the new one, keep SECRET_KEYS, and start.")


def settings_of(url: str) -> Settings:
    """Those of this start, on another database; without a first admin, who would be a row too many."""
    os.environ.update(DATABASE_URL=url, ADMIN_EMAIL="", ADMIN_PASSWORD="")
    get_settings.cache_clear()
    return get_settings()


def copy(source: Engine, target: Engine) -> dict[str, int]:
    """The number of rows by table."""
    tables = all_tables()
    # The writing side of both: nobody changes the SQLite database meanwhile, and times are UTC's on PostgreSQL.
    with source.connect() as old, target.begin() as new:
        refuse_unless_empty(new, tables)
        new.execute(Role.__table__.delete())  # type: ignore[attr-defined]  # its own come along, with their ids
        counts = {table.name: copy_table(table, old, new) for table in tables}
        for table in tables:
            continue_numbers(table, new)
    return counts


def all_tables() -> list[Table]:
    """Those that are referred to first."""
    for module in pkgutil.iter_modules(app.models.__path__, "app.models."):
        import_module(module.name)
    return SQLModel.metadata.sorted_tables


def refuse_unless_empty(new: Connection, tables: list[Table]) -> None:
    for table in tables:
        if table.name != "role" and new.execute(select(func.count()).select_from(table)).scalar():
            sys.exit(f"muster: the PostgreSQL database is not empty: {table.name} has rows")


def copy_table(table: Table, old: Connection, new: Connection) -> int:
    count = 0
    for rows in old.execute(select(table)).mappings().partitions(BATCH):
        new.execute(insert(table), [dict(row) for row in rows])
        count += len(rows)
    copied = new.execute(select(func.count()).select_from(table)).scalar()
    if copied != count:
        sys.exit(f"muster: nothing was copied: {table.name} would have {copied} rows instead of {count}")
    return count


def continue_numbers(table: Table, new: Connection) -> None:
    """A sequence knows nothing of rows that came with their number."""
    for column in table.primary_key.columns:
        sequence = new.execute(
            text("SELECT pg_get_serial_sequence(quote_ident(:table), :column)"),
            {"table": table.name, "column": column.name},
        ).scalar()
        highest = new.execute(select(func.max(column))).scalar() if sequence else None
        if highest is not None:
            new.execute(select(func.setval(sequence, highest)))


if __name__ == "__main__":
    main()

"""Copy every row of a SQLite database into an empty PostgreSQL database, as ./scripts/to_postgres does.

It is one transaction. Both sides go through the tables of app/models, so amounts stay exact and times stay UTC. Stop
the service first: what is written to SQLite meanwhile is not copied. With the same SECRET_KEYS nobody is signed out.
"""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import Connection, Engine, Table, func, insert, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from app.core.dialects import make_engine
from app.core.migrations import newest_revision, schema_revision
from app.core.settings import Settings, get_settings
from app.models.base import all_tables
from scripts.errors import database_name, explained_errors, refuse_in_use
from scripts.start import prepare

BATCH = 1000
LOADED = {"role", "oauth_client"}  # what a new database has rows in


def main() -> None:
    parser = Parser(prog="./scripts/to_postgres", description=__doc__)
    parser.add_argument("url", metavar="URL", help="postgresql://user:password@host/database")
    url = parser.parse_args().url
    if not is_postgres(url):
        parser.error("URL has to be postgresql://user:password@host/database")
    source = get_settings()
    refuse_source(source)
    with refusals_of_url():
        target = settings_for(url)
        prepare(target)
    try:
        copied = copy(make_engine(source), make_engine(target))
    except DBAPIError as error:
        sys.exit(f"muster: nothing was copied: {str(error.orig).strip().splitlines()[0]}")
    for name, count in copied.items():
        print(f"{count:>12,}  {name}")
    print("Copied. Set DATABASE_URL to the PostgreSQL database, keep SECRET_KEYS, and start.")


def is_postgres(url: str) -> bool:
    try:
        return make_url(url).get_backend_name() in {"postgres", "postgresql"}
    except (ArgumentError, ValueError):  # no URL, or a port that is no number
        return False


def refuse_source(source: Settings) -> None:
    """End the script unless DATABASE_URL is a SQLite database of this release that nobody uses."""
    if not source.on_sqlite:
        sys.exit("muster: DATABASE_URL has to be the SQLite database to copy from")
    if not source.sqlite_file.exists():  # and connecting would create it
        sys.exit(f"muster: DATABASE_URL: there is no {database_name(source)} to copy from")
    with explained_errors(source):
        if schema_revision(source) != newest_revision():
            sys.exit("muster: DATABASE_URL: start this release on the SQLite database once; that migrates it")
        with closing(sqlite3.connect(source.sqlite_file, timeout=1)) as database:
            refuse_in_use(database)


@contextmanager
def refusals_of_url() -> Iterator[None]:
    """Name the argument where a refusal names the setting, which is the SQLite database here."""
    try:
        yield
    except SystemExit as refusal:
        sys.exit(str(refusal.code).replace("muster: DATABASE_URL:", "muster: URL:"))


def settings_for(url: str) -> Settings:
    """These settings with another database, and without a first admin, who would be one row too many."""
    os.environ.update(DATABASE_URL=url, ADMIN_EMAIL="", ADMIN_PASSWORD="")
    get_settings.cache_clear()
    return get_settings()


def copy(source: Engine, target: Engine) -> dict[str, int]:
    """Copy everything; returns the number of rows by table."""
    tables = all_tables()
    # Both are write engines: nobody can change the SQLite database meanwhile, and PostgreSQL takes times as UTC.
    with source.connect() as old, target.begin() as new:
        refuse_unless_empty(new, tables)
        # The copied rows of LOADED bring their ids. The files of the others may have rows of an interrupted attempt,
        # and statistics about them that make each check of a foreign key take milliseconds.
        preparer = new.dialect.identifier_preparer
        new.execute(text(f"TRUNCATE {', '.join(map(preparer.format_table, tables))}"))
        counts = {table.name: copy_table(table, old, new) for table in tables}
        for table in tables:
            advance_sequences(table, old, new)
    return counts


def refuse_unless_empty(new: Connection, tables: list[Table]) -> None:
    for table in tables:
        if table.name not in LOADED and new.execute(select(func.count()).select_from(table)).scalar():
            sys.exit(f"muster: the PostgreSQL database is not empty: {table.name} has rows")


def copy_table(table: Table, old: Connection, new: Connection) -> int:
    count = 0
    columns = [column for column in table.columns if column.computed is None]
    for rows in old.execute(select(*columns)).mappings().partitions(BATCH):
        new.execute(insert(table), [dict(row) for row in rows])
        count += len(rows)
    copied = new.execute(select(func.count()).select_from(table)).scalar()
    if copied != count:
        sys.exit(f"muster: nothing was copied: {table.name} would have {copied} rows instead of {count}")
    return count


def advance_sequences(table: Table, old: Connection, new: Connection) -> None:
    """Move the sequences past the ids that SQLite has issued, including those whose rows are deleted."""
    for column in table.primary_key.columns:
        sequence = new.execute(
            text("SELECT pg_get_serial_sequence(quote_ident(:table), :column)"),
            {"table": table.name, "column": column.name},
        ).scalar()
        issued = old.execute(
            text("SELECT seq FROM sqlite_sequence WHERE name = :table"), {"table": table.name}
        ).scalar()
        highest = issued or new.execute(select(func.max(column))).scalar() if sequence else None
        if highest is not None:
            new.execute(select(func.setval(sequence, highest)))


if __name__ == "__main__":
    main()

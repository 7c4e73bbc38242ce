"""Errors that the person who runs a script can fix, shown as one line instead of a traceback."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from app.core.settings import ROOT, Settings


@contextmanager
def explained_errors(settings: Settings) -> Iterator[None]:
    """End the script with one line when the database or a file cannot be used."""
    try:
        yield
    except DBAPIError as error:
        name = database_name(settings) if settings.on_sqlite else "the database"
        reason = str(error.orig).strip().splitlines()[0]
        sys.exit(f"muster: DATABASE_URL: {name} cannot be used: {reason}")
    except OSError as error:
        sys.exit(f"muster: {error.filename or 'a file'} cannot be used: {error.strerror}")


def refuse_in_use(database: sqlite3.Connection) -> None:
    """End the script if another process has this database open: only a sole connection can leave the WAL mode."""
    try:
        database.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError:
        sys.exit("muster: the database is in use; stop the service first")


def database_name(settings: Settings) -> str:
    """The name to show, without the password that a URL may contain."""
    return relative(str(settings.sqlite_file)) if settings.on_sqlite else "PostgreSQL"


def relative(path: str) -> str:
    return str(Path(path).relative_to(ROOT)) if Path(path).is_relative_to(ROOT) else path

"""Errors that the person who runs a script can fix, shown as one line instead of a traceback."""

import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from sqlalchemy.exc import DBAPIError

from app.core.errors import Unavailable
from app.core.settings import ROOT, Settings, describe_path


@contextmanager
def explained_errors(settings: Settings) -> Iterator[None]:
    """End the script with one line when the database or a file cannot be used."""
    try:
        yield
    except DBAPIError as error:
        name = database_name(settings) if settings.on_sqlite else "the database"
        reason = str(error.orig).strip().splitlines()[0]
        if migration := migration_in(error):
            sys.exit(f"muster: {migration} failed, and {name} is as it was: {reason}")
        sys.exit(f"muster: DATABASE_URL: {name} cannot be used: {reason}")
    except Unavailable:  # what make_engine() turns SQLITE_READONLY into
        name = database_name(settings)
        sys.exit(
            f"muster: DATABASE_URL: {name} cannot be written: it, its folder and the files next to it have to belong to"
            " this user, on a disk that is not read-only"
        )
    except OSError as error:
        sys.exit(describe_path(error))


def end_cleanly() -> None:
    """End at SIGTERM and SIGHUP as after any other failure: nothing is left behind."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit("muster: stopped"))


def migration_in(error: Exception) -> str | None:
    """The file of the migration in which the error was raised."""
    files = [frame.filename for frame in extract_tb(error.__traceback__)]
    return next((relative(file) for file in files if Path(file).parent == ROOT / "migrations" / "versions"), None)


def refuse_in_use(database: sqlite3.Connection) -> None:
    """End the script if another process has this database open: only a sole connection can leave the WAL mode."""
    try:
        database.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            sys.exit("muster: the database is in use; stop the service first")
        sys.exit(f"muster: DATABASE_URL: the database cannot be used: {error}")


def database_name(settings: Settings) -> str:
    """The name to show, without the password that a URL may contain."""
    return relative(str(settings.sqlite_file)) if settings.on_sqlite else "PostgreSQL"


def relative(path: str) -> str:
    return str(Path(path).relative_to(ROOT)) if Path(path).is_relative_to(ROOT) else path

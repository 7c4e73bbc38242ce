"""Copy the whole database into one file, and put it back, as ./scripts/backup and ./scripts/restore do.

A backup runs while the service writes, and shows the database at one moment. After a restore every phone has to fill
its copy again: the revisions and ids issued since the backup would otherwise be issued a second time, for other rows.
"""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import psycopg
from sqlalchemy import URL, BigInteger, Connection, create_engine, inspect, make_url, text, update
from sqlalchemy.pool import NullPool
from sqlmodel import col

from app.core.settings import DATA, get_settings
from app.models.base import all_tables
from app.models.chat import ChatRoom
from app.models.user import User
from migrations.ids import never_reuse_ids
from scripts.errors import end_cleanly, explained_errors, refuse_in_use

# More than anybody uses of one number between a backup and its restore, and few enough for a million restores:
# JavaScript counts exactly up to 2**53.
GAP = 2**32
DRAFTS = ".muster-draft-"


class BackupError(Exception):
    """Why nothing was done, as a sentence."""


def main() -> None:
    command, *arguments = sys.argv[1:]
    options = parse(command, arguments)
    end_cleanly()
    settings = get_settings()
    url = make_url(settings.database_url)
    try:
        with explained_errors(settings):
            if command == "backup":
                file = options.from_folder / options.file if options.file else default_file(url)
                backup(url, file)
                print(
                    f"Written: {file}. Keep SECRET_KEYS (or data/secret.key) too: without it everybody is signed out."
                )
            else:
                if options.after_pg_restore:
                    finish_pg_restore(url)
                else:
                    restore(url, options.from_folder / options.file, force=options.force)
                print("Restored. Start the service: it migrates the database, and phones fill their copies again.")
    except (BackupError, sqlite3.Error, psycopg.Error) as error:
        sys.exit(f"muster: {error}")


def parse(command: str, arguments: list[str]) -> Namespace:
    parser = Parser(prog=f"./scripts/{command}", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE")
    parser.add_argument("--from-folder", type=Path, default=Path(), help=SUPPRESS)
    if command == "restore":
        parser.add_argument("--force", action="store_true", help="replace a database that has tables")
        parser.add_argument("--after-pg-restore", action="store_true", help="do what pg_restore alone does not")
    options = parser.parse_args(arguments)
    if command == "restore" and bool(options.file) == options.after_pg_restore:
        parser.error("restore takes a file, or --after-pg-restore where pg_restore has read it")
    return options


def default_file(url: URL) -> Path:
    folder = DATA / "backups"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"muster-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{'db' if _is_sqlite(url) else 'dump'}"


# ---- Backup ----


def backup(url: URL, file: Path) -> None:
    """Write the file whole or not at all, and readable by its owner alone: a thief could use what it contains."""
    if file.exists():
        raise BackupError(f"{file} exists")
    if not file.parent.is_dir():
        raise BackupError(f"{file.parent}: no such folder")
    with _draft_folder(file.parent) as folder:
        draft = folder / file.name
        draft.touch(mode=0o600)
        if _is_sqlite(url):
            _vacuum_into(_existing(url), draft)
        else:
            _dump(url, draft)
        _to_disk(draft)
        draft.rename(file)


def _vacuum_into(database: Path, draft: Path) -> None:
    """A single read transaction, which blocks no writer."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("VACUUM INTO ?", (str(draft),))
    _check(draft, of=database)


def _check(draft: Path, *, of: Path) -> None:
    with closing(sqlite3.connect(f"file:{draft}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            is_whole = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        except sqlite3.DatabaseError as error:
            raise BackupError(f"{of} is not a SQLite database of Muster: {error}") from error
        if not is_whole:
            raise BackupError(f"{of} is damaged")
        if not found:
            raise BackupError(f"{of} is not a SQLite database of Muster: it has none of Muster's tables")


def _dump(url: URL, draft: Path) -> None:
    """Run pg_dump, with the password in the environment, where no process list shows it."""
    address = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    options = [f"--dbname={address}", "--format=custom", "--no-owner", "--no-privileges", f"--file={draft}"]
    done = subprocess.run([_postgres_client("pg_dump"), *options], env=environment, stderr=subprocess.PIPE, check=False)
    _check_end("pg_dump", done.returncode, done.stderr)


def _to_disk(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())


# ---- Restore ----


def restore(url: URL, file: Path, *, force: bool) -> None:
    """Restore everything or nothing. Refused while the service runs, and where there are tables unless `force`."""
    if not file.is_file():
        raise BackupError(f"{file} is a folder; name a file in it" if file.is_dir() else f"{file}: no such file")
    if _is_sqlite(url):
        _restore_sqlite(url, file, force=force)
    else:
        _restore_postgres(url, file, force=force)


def _restore_sqlite(url: URL, file: Path, *, force: bool) -> None:
    database = Path(str(url.database))
    if database.exists() and not force:
        raise BackupError(f"{database} exists; --force replaces it")
    database.parent.mkdir(exist_ok=True)
    with _draft_folder(database.parent) as folder:
        draft = folder / database.name
        draft.touch(mode=0o600)
        shutil.copyfile(file, draft)
        _check(draft, of=file)
        engine = create_engine(URL.create("sqlite", database=str(draft)), poolclass=NullPool)
        with engine.begin() as connection:
            raise_numbers(connection)
        with closing(sqlite3.connect(draft)) as source, closing(sqlite3.connect(database, timeout=1)) as target:
            refuse_in_use(target)
            source.backup(target)


def _restore_postgres(url: URL, file: Path, *, force: bool) -> None:
    """Restore and raise in one transaction: phones would miss changes if the service started between the two."""
    with _sole_connection(url) as connection:
        if inspect(connection).has_table("alembic_version") and not force:
            raise BackupError("the database has tables; --force replaces them")
        options = ["--clean", "--if-exists", "--no-owner", "--no-privileges", "--file=-"]
        command = [_postgres_client("pg_restore"), *options, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
            _execute(cast("IO[bytes]", client.stdout), connection.connection.cursor())
            _, complaint = client.communicate()
        _check_end("pg_restore", client.returncode, complaint)
        connection.execute(text("RESET search_path"))  # the script empties it
        raise_numbers(connection)


def finish_pg_restore(url: URL) -> None:
    """Raise the numbers of a database that pg_restore has filled, before the service starts."""
    if _is_sqlite(url):
        raise BackupError("--after-pg-restore is for PostgreSQL; a SQLite file is restored by ./scripts/restore FILE")
    with _sole_connection(url) as connection:
        if not inspect(connection).has_table("alembic_version"):
            raise BackupError("the database has no tables; run pg_restore first")
        raise_numbers(connection)


@contextmanager
def _sole_connection(url: URL) -> Iterator[Connection]:
    """A transaction in a database that nobody else uses."""
    engine = create_engine(url, poolclass=NullPool, connect_args={"application_name": "muster restore"})
    with engine.begin() as connection:
        if users := connection.execute(text(OTHER_USERS)).scalars().all():
            raise BackupError(f"the database is in use by {', '.join(users)}; stop the service and its workers first")
        yield connection


OTHER_USERS = """
SELECT DISTINCT coalesce(nullif(application_name, ''), 'an unnamed client') FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
"""


def _execute(script: IO[bytes], cursor: Any) -> None:
    """Execute what pg_restore writes for psql: statements, and rows from a COPY up to a backslash and a dot."""
    statements: list[bytes] = []
    for line in script:
        if line.startswith(b"COPY ") and line.endswith(b" FROM stdin;\n"):
            cursor.execute(b"".join(statements))
            statements.clear()
            with cursor.copy(line) as copy:
                while (row := script.readline()) not in (b"\\.\n", b""):
                    copy.write(row)
        elif not line.startswith((b"\\", b"SET transaction_timeout")):  # psql's own; a setting of new servers alone
            statements.append(line)
    cursor.execute(b"".join(statements))


def raise_numbers(connection: Connection) -> None:
    """Raise every revision and every id to come above all that were ever issued.

    The floor rises too, so that phones are told to fill their copies again, no ETag or cache entry is met a second
    time, and a client that resumes a chat misses nothing.
    """
    beyond = col(User.operations_revision) + GAP
    connection.execute(update(User).values(operations_revision=beyond, operations_floor=beyond))
    restored = inspect(connection).get_table_names()  # a backup may be older than some of our tables
    if ChatRoom.__tablename__ in restored:
        connection.execute(update(ChatRoom).values(last_number=col(ChatRoom.last_number) + GAP))
    tables = [
        table.name
        for table in all_tables()
        if isinstance(getattr(table.autoincrement_column, "type", None), BigInteger)
    ]
    never_reuse_ids(connection, *tables)  # a backup of an older release lacks this
    for table in tables:
        if table in restored:
            _raise_ids(connection, table)


def _raise_ids(connection: Connection, table: str) -> None:
    if connection.dialect.name == "sqlite":
        last = text("DELETE FROM sqlite_sequence WHERE name = :table RETURNING seq")
        highest = connection.execute(last, {"table": table}).scalar() or 0
        raised = "INSERT INTO sqlite_sequence VALUES (:table, :highest + :gap)"
        connection.execute(text(raised), {"table": table, "highest": highest, "gap": GAP})
    else:
        raised = (
            "SELECT setval(ids, nextval(ids) + :gap) FROM CAST(pg_get_serial_sequence(:table, 'id') AS regclass) AS ids"
        )
        connection.execute(text(raised), {"table": table, "gap": GAP})


# ---- Both ----


@contextmanager
def _draft_folder(place: Path) -> Iterator[Path]:
    """A folder for unfinished files, locked as long as it is in use: those that killed scripts left are removed."""
    for left in place.glob(f"{DRAFTS}*"):
        with suppress(BlockingIOError), _locked(left):
            shutil.rmtree(left)
    with TemporaryDirectory(prefix=DRAFTS, dir=place) as folder, _locked(Path(folder)):
        yield Path(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _postgres_client(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise BackupError(f"{name} is missing; install PostgreSQL's client (apt install postgresql-client)")
    return program


def _check_end(client: str, status: int, complaint: bytes) -> None:
    if status != 0:
        raise BackupError(f"{client}: {complaint.decode(errors='replace').strip() or status}")


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _existing(url: URL) -> Path:
    """The database file; SQLite would create an empty one."""
    database = Path(str(url.database))
    if not database.is_file():
        raise BackupError(f"{database}: no such database")
    return database


if __name__ == "__main__":
    main()

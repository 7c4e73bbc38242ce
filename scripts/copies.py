"""What ./scripts/backup and ./scripts/restore run: the whole database as one file, and back.

A backup is taken while the service writes, and is one moment of it. After a restore every phone has to fill its copy
anew: revisions that were given out since the backup would be given out again, for other changes.
"""

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, inspect, make_url, text, update
from sqlalchemy.pool import NullPool
from sqlmodel import col

from app.core.settings import DATA, get_settings
from app.models.chat import ChatRoom
from app.models.user import User

# More than anybody changes between a backup and its restore; JavaScript's exact numbers have room for two million.
REVISIONS_APART = 2**32


class Refused(Exception):
    """Why nothing was done, in words."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Copy the database into a file, or put it back.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("backup", "restore"):
        command = commands.add_parser(name)
        command.add_argument("file", type=Path, nargs="?" if name == "backup" else None)
        command.add_argument("--from-folder", type=Path, default=Path(), help=argparse.SUPPRESS)
        if name == "restore":
            command.add_argument("--force", action="store_true", help="replace a database that has tables")
    arguments = parser.parse_args()
    url = make_url(get_settings().database_url)
    try:
        if arguments.command == "backup":
            file = arguments.from_folder / arguments.file if arguments.file else default_file(url)
            backup(url, file)
            print(
                f"Written: {file}. Keep SECRET_KEYS (or data/secret.key) with it: without them everybody signs in anew."
            )
        else:
            restore(url, arguments.from_folder / arguments.file, force=arguments.force)
            print("Restored. Start the service: it brings the schema up to date. Phones fill their copies anew.")
    except (Refused, OSError, sqlite3.Error) as error:
        sys.exit(f"muster: {error}")


def default_file(url: URL) -> Path:
    folder = DATA / "backups"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"muster-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{'db' if _is_sqlite(url) else 'dump'}"


# ---- Backup ----


def backup(url: URL, file: Path) -> None:
    """The file is there as a whole or not at all, and is its owner's alone: it holds what a thief could use."""
    if file.exists():
        raise Refused(f"{file} exists")
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.touch(mode=0o600, exist_ok=False)
    try:
        if _is_sqlite(url):
            _vacuum_into(_existing(url), draft)
        else:
            _run("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={draft}")
        _to_disk(draft)
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)


def _vacuum_into(database: Path, draft: Path) -> None:
    """One reading transaction, which no writer waits for."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("VACUUM INTO ?", (str(draft),))
    _check(draft)


def _check(file: Path) -> None:
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as connection:
        if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise Refused(f"{file} is damaged")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            raise Refused(f"{file} is no backup of Muster")


def _to_disk(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())


# ---- Restore ----


def restore(url: URL, file: Path, *, force: bool) -> None:
    """As a whole or not at all; refused while the service runs, and over a database with tables unless `force`."""
    if not file.is_file():
        raise Refused(f"{file}: there is no such file")
    if _is_sqlite(url):
        _restore_sqlite(url, file, force=force)
    else:
        _restore_postgres(url, file, force=force)


def _restore_sqlite(url: URL, file: Path, *, force: bool) -> None:
    database = Path(str(url.database))
    if database.exists() and not force:
        raise Refused(f"{database} exists: --force replaces it")
    database.parent.mkdir(exist_ok=True)
    draft = database.with_name(f".{database.name}.{os.getpid()}")
    try:
        shutil.copyfile(file, draft)
        draft.chmod(0o600)
        _check(draft)
        engine = create_engine(f"sqlite:///{draft}", poolclass=NullPool)
        with engine.begin() as connection:
            move_revisions(connection)
        with closing(sqlite3.connect(draft)) as source, closing(sqlite3.connect(database, timeout=1)) as target:
            _refuse_company(target)
            source.backup(target)
    finally:
        draft.unlink(missing_ok=True)


def _refuse_company(target: sqlite3.Connection) -> None:
    """Only the one and only connection can leave the write-ahead log."""
    try:
        target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError:
        raise Refused("the database is in use: stop the service first") from None


def _restore_postgres(url: URL, file: Path, *, force: bool) -> None:
    engine = create_engine(url, poolclass=NullPool, connect_args={"application_name": "muster restore"})
    with engine.connect() as connection:
        in_use = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'muster'"
        )
        if connection.execute(text(in_use)).scalar():
            raise Refused("the database is in use: stop the service and its workers first")
        if inspect(connection).has_table("alembic_version") and not force:
            raise Refused("the database has tables: --force replaces them")
    options = ["--clean", "--if-exists", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"]
    _run("pg_restore", url, *options, str(file))
    with engine.begin() as connection:
        move_revisions(connection)


def move_revisions(connection: Connection) -> None:
    """Beyond all numbers that were ever given out. The floor with them: a copy from before is told to fill itself anew,
    no ETag and nothing in the cache is met again, and who resumes a chat misses nothing."""
    beyond = col(User.operations_revision) + REVISIONS_APART
    connection.execute(update(User).values(operations_revision=beyond, operations_floor=beyond))
    if inspect(connection).has_table(ChatRoom.__tablename__):  # a backup may be older than the chat
        connection.execute(update(ChatRoom).values(last_number=col(ChatRoom.last_number) + REVISIONS_APART))


# ---- Both ----


def _run(command: str, url: URL, *options: str) -> None:
    """With the password where no list of processes shows it."""
    program = shutil.which(command)
    if program is None:
        raise Refused(f"{command} is missing: install PostgreSQL's client (apt install postgresql-client)")
    address = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    done = subprocess.run(
        [program, f"--dbname={address}", *options], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Refused(f"{command}: {done.stderr.strip() or done.returncode}")


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _existing(url: URL) -> Path:
    """SQLite would make an empty one."""
    database = Path(str(url.database))
    if not database.is_file():
        raise Refused(f"{database}: there is no such database")
    return database


if __name__ == "__main__":
    main()

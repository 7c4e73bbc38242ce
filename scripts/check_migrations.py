"""Check that the migrations produce what the models declare, on a fresh SQLite file and a fresh PostgreSQL database."""

import atexit
import os
import shutil
import sys
import tempfile
from io import StringIO
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from app.core.settings import ROOT, get_settings
from tests.support.databases import SECRET_KEY, fresh_database, start_postgres

DATABASES = ("sqlite", "postgresql")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="muster-check-"))
    folder.chmod(0o755)  # PostgreSQL runs as a user of its own
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # runs after the server's own handler, which stops it
    postgres = os.environ.get("TEST_DATABASE_URL") or start_postgres(folder)
    for kind in DATABASES:
        with fresh_database(kind, folder, postgres, migrated=False) as url:
            if difference := _difference(url):
                sys.exit(f"check_migrations: on {kind} the migrations differ from the models: {difference}")
    print(f"check_migrations: the migrations match the models on {' and '.join(DATABASES)}")


def _difference(url: str) -> str | None:
    """The changes that `alembic revision --autogenerate` would still make, or None."""
    os.environ.update(DATABASE_URL=url, ENVIRONMENT="test", SECRET_KEYS=SECRET_KEY)
    get_settings.cache_clear()
    config = Config(ROOT / "alembic.ini", stdout=StringIO())
    command.upgrade(config, "head")
    try:
        command.check(config)
    except CommandError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main()

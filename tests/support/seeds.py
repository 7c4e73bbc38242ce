"""scripts/seed.py, run as a process."""

import os
from pathlib import Path

from sqlalchemy import text

from tests.support.databases import ROOT, SECRET_KEY
from tests.support.processes import fork_script
from tests.support.schema import engine_for

SCRIPT = ROOT / "scripts" / "seed.py"


def settings_for(url: str, **more: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": url, "ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY, **more}


def seed(url: str, *arguments: str, answer: str = "", folder: Path = ROOT, **settings: str) -> tuple[int, str]:
    """The exit status and the output of scripts/seed.py."""
    environment = settings_for(url, **settings)
    return fork_script(SCRIPT, *arguments, environment=environment, folder=folder, answer=answer)


def admins(url: str) -> list[str]:
    statement = "SELECT email FROM \"user\" JOIN role ON role.id = role_id WHERE role.name = 'admin'"
    with engine_for(url).begin() as connection:
        return list(connection.execute(text(statement)).scalars())

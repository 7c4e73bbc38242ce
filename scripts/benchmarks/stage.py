"""What every scenario stands on: databases, served instances, the floor, and sessions that are signed in already."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx
from sqlalchemy import update
from sqlmodel import Session

from app.accounts import new_user
from app.db import make_engine
from app.models import utcnow
from app.models.token import RefreshToken
from app.oauth2 import AuthorizationServer, Device
from app.security import Signers
from app.settings import ROOT, Settings
from tests.servers import SECRET_KEY, Muster, fresh_database

# Instances that are compared share it: a token of one is good for the others.
ISSUER = "http://localhost:8000"
# As many phones as are active at once. Each is a bucket of LIMIT_DEFAULT and a verified signature of its own.
SESSIONS = 500


class Floor(Muster):
    """The floor of floor.py, served like an instance of Muster."""

    command = ("-m", "scripts.benchmarks.floor")


@dataclass(frozen=True)
class Stage:
    """Where a run of scenarios takes place, and how long it measures."""

    folder: Path
    postgres: str
    databases: tuple[str, ...]
    rounds: int
    seconds: int

    @contextmanager
    def database(self, kind: str, *, migrated: bool = True) -> Iterator[str]:
        with fresh_database(kind, self.folder, self.postgres, migrated=migrated) as url:
            yield url

    @contextmanager
    def muster(self, kind: str, **settings: str) -> Iterator[Muster]:
        """One instance on a database of its own."""
        with self.database(kind) as url, Muster(url, self.folder, **settings) as served:
            yield served

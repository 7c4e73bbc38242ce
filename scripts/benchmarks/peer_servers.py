"""The programs in scripts/benchmarks/peers/, which Muster is compared with, served as their authors would."""

import os
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import httpx
from jose import jwt
from sqlalchemy import MetaData, Table, create_engine, insert, make_url, select
from sqlalchemy.pool import NullPool

from scripts.benchmarks.peer_environment import PEERS, peer_python
from tests.support.processes import Process
from tests.support.servers import NO_TLS, PASSWORD, STARTUP, free_port, wait_for
from tests.support.startable import Startable

_KEY = "k" * 40  # both sign their tokens with it


class Peer(Startable):
    """A served peer on a database of its own, in which it makes its tables when it starts."""

    module: ClassVar[str]
    prefix: ClassVar[str]
    sign_in_path: ClassVar[str]
    drivers: ClassVar[Mapping[str, str]]

    def __init__(self, database_url: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = make_url(database_url)
        self.log_file = folder / f"{self.module}-{self.port}.log"
        self.process: Process | None = None

    @property
    def on_sqlite(self) -> bool:
        return self.database.get_backend_name() == "sqlite"

    def start(self) -> None:
        url = self.database.set(drivername=self.drivers[self.database.get_backend_name()])
        environment = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
        command = [str(peer_python()), "-m", "uvicorn", f"{self.module}:app", "--port", str(self.port)]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=PEERS, env=environment, stdout=log, stderr=log)
        wait_for(self._is_ready, what=f"a ready peer, log: {self.log_file}")

    def _is_ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            sys.exit(f"muster: {self.module} has ended: {self.log_file.read_text()}")
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(STARTUP)
            self.process = None

    def close(self) -> None:
        self.client.close()

    @cached_property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=STARTUP, verify=NO_TLS)

    def register(self) -> str:
        """Register a person with PASSWORD, and return the address."""
        email = f"{uuid4().hex}@example.com"
        body = {"email": email, "password": PASSWORD}
        self.client.post(f"{self.prefix}/auth/register", json=body).raise_for_status()
        return email

    def sign_in(self, email: str) -> httpx.Response:
        return self.client.post(self.sign_in_path, data={"username": email, "password": PASSWORD})

    def fill(self, people: int, operations: Sequence[Mapping[str, Any]]) -> list[str]:
        """Insert people with these operations each, and return an access token of each of them."""
        engine = create_engine(
            self.database.set(drivername=NaivePeer.drivers[self.database.get_backend_name()]), poolclass=NullPool
        )
        tables = MetaData()
        user, operation = (Table(name, tables, autoload_with=engine) for name in ("user", "operation"))
        with engine.begin() as connection:
            new = [self.new_person(f"{uuid4().hex}@example.com") for _ in range(people)]
            connection.execute(insert(user), new)
            found = select(user.c.id).where(user.c.email.in_([person["email"] for person in new]))
            owners = connection.execute(found).scalars().all()
            rows = [{**row, **self.ownership(owner)} for owner in owners for row in operations]
            connection.execute(insert(operation), rows)
            connection.exec_driver_sql("ANALYZE")
        expires = datetime.now(UTC) + timedelta(hours=2)
        return [jwt.encode({**self.claims(owner), "exp": expires}, _KEY) for owner in owners]

    @abstractmethod
    def new_person(self, email: str) -> dict[str, Any]:
        """The columns of a user."""

    @abstractmethod
    def ownership(self, owner: Any) -> dict[str, Any]:
        """The columns of an operation that its client does not send."""

    @abstractmethod
    def claims(self, owner: Any) -> dict[str, Any]:
        """The claims of an access token beside its end."""


class NaivePeer(Peer):
    """naive.py: sync SQLModel, python-jose and passlib, as the tutorials write it."""

    module, prefix, sign_in_path = "naive", "/api", "/api/auth/token"
    drivers: ClassVar = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}

    def new_person(self, email: str) -> dict[str, Any]:
        return {"email": email, "hashed_password": "none", "is_active": True, "created_at": _now()}

    def ownership(self, owner: Any) -> dict[str, Any]:
        return {"owner_id": owner, "created_at": _now()}

    def claims(self, owner: Any) -> dict[str, Any]:
        return {"sub": str(owner)}


class FastapiUsersPeer(Peer):
    """fu.py: fastapi-users with its JWT strategy on async SQLAlchemy, as its documentation has it."""

    module, prefix, sign_in_path = "fu", "", "/auth/login"
    drivers: ClassVar = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}

    def new_person(self, email: str) -> dict[str, Any]:
        user_id = str(uuid4()) if self.on_sqlite else uuid4()
        flags = {"is_active": True, "is_superuser": False, "is_verified": True}
        return {"id": user_id, "email": email, "hashed_password": "none", **flags}

    def ownership(self, owner: Any) -> dict[str, Any]:
        return {"owner_id": UUID(owner).hex if self.on_sqlite else owner}  # two types of UUID in one schema

    def claims(self, owner: Any) -> dict[str, Any]:
        return {"sub": str(owner), "aud": ["fastapi-users:auth"]}


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)

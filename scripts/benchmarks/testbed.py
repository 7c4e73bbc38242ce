"""The testbed of every scenario: databases, running instances, the floor, and sessions that are signed in."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Protocol
from uuid import uuid4

import psutil  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy import update
from sqlmodel import Session

from app.accounts.users import create_user
from app.core.dialects import make_engine
from app.core.settings import Settings
from app.models.base import utcnow
from app.models.refresh_token import RefreshToken, TokenPair
from app.models.user import User
from app.oauth2.access_tokens import Signers
from app.oauth2.authorization_server import AuthorizationServer
from app.oauth2.refresh_tokens import Device, SignIn
from tests.support.databases import SECRET_KEY, fresh_database
from tests.support.processes import Process
from tests.support.servers import Muster

# The instances of a comparison share the issuer, so that a token of one is valid at the others.
ISSUER = "https://bench.example.com"  # production allows no other than https
# Phones that are active at once. Each has its own count in LIMIT_DEFAULT, and its own signature to verify.
SESSIONS = 500
LIFE = timedelta(hours=2)

logging.getLogger("muster").addHandler(logging.NullHandler())  # 500 new sessions need no log lines


@dataclass(frozen=True)
class Testbed:
    """The databases and instances of a run of scenarios, and how long it measures: `rounds` of `seconds` each."""

    folder: Path
    postgres: str
    databases: tuple[str, ...]
    rounds: int
    seconds: int

    @contextmanager
    def database(self, kind: str, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a database that nobody else uses."""
        with fresh_database(kind, self.folder, self.postgres, migrated=migrated) as url:
            yield url

    def muster(self, url: str, **settings: str) -> Muster:
        return Muster(url, self.folder, PUBLIC_URL=ISSUER, **settings)

    def floor(self, url: str) -> Muster:
        return Muster(url, self.folder, app="scripts.benchmarks.floor:app", PUBLIC_URL=ISSUER)

    def access_tokens(self, url: str) -> list[str]:
        """An access token for each of SESSIONS sessions of one user, all used before, since a first use writes."""
        return [pair.access_token for pair in start_sessions(url, people=1, each=SESSIONS)]


def start_sessions(url: str, *, people: int, each: int = 1) -> list[TokenPair]:
    """Sessions of new users, as if their access tokens had been used before."""
    settings = Settings(
        environment="test",
        database_url=url,
        secret_keys=(SECRET_KEY,),
        public_url=ISSUER,
        access_token_ttl=LIFE,
        refresh_idle_ttl=LIFE,
        refresh_absolute_ttl=LIFE,
    )
    signers = Signers(settings.secret_keys, settings.public_url)
    server = AuthorizationServer(settings, signers, lambda _session, _snapshot: None)
    device = Device(client_id="bench", device="bench", ip="127.0.0.1", user_agent="wrk")
    engine = make_engine(settings)
    with Session(engine) as session:
        users = [_new_user(session) for _ in range(people)]
        sign_ins = [SignIn(user.id, user.auth_epoch, device) for user in users for _ in range(each)]
        pairs = [server.start_session(session, sign_in, utcnow()) for sign_in in sign_ins]
        session.connection().execute(update(RefreshToken).values(confirmed=True))
        session.commit()
    engine.dispose()
    return pairs


def _new_user(session: Session) -> User:
    return create_user(session, User(email=f"{uuid4().hex}@example.com", name="Ada", password_hash="none"))  # noqa: S106  # no hash


class Served(Protocol):
    """A running server of a benchmark: an instance of Muster, or of what it is compared with."""

    url: str

    @property
    def process(self) -> Process | None: ...


def server_process(served: Served) -> psutil.Process:
    if served.process is None:
        raise ValueError("this instance is not running")
    return psutil.Process(served.process.pid)


def cpu_seconds(served: Served) -> float:
    """User and kernel time of the server's processes so far, without those of the database."""
    return cpu_seconds_of_tree(server_process(served))


def cpu_seconds_of_tree(process: psutil.Process) -> float:
    """User and kernel time of a process and its children, including those that have ended."""
    seconds = 0.0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended by now, and counts as its parent's
            times = member.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def resident_bytes(served: Served) -> int:
    """The resident set of a server's processes."""
    process = server_process(served)
    return sum(member.memory_info().rss for member in (process, *process.children(recursive=True)))


@dataclass
class Memory:
    """The resident set of a server process, in bytes."""

    before: int
    peak: int


@contextmanager
def watch_memory(served: Muster) -> Iterator[Memory]:
    """Sample the memory of the server every 20 ms."""
    process, finished = server_process(served), Event()
    memory = Memory(process.memory_info().rss, 0)

    def watch() -> None:
        while not finished.wait(0.02):
            memory.peak = max(memory.peak, process.memory_info().rss)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield memory
    finally:
        finished.set()
        watcher.join()

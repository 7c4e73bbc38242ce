"""The testbed of every scenario: databases, running instances, the floor, and sessions that are signed in."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import psutil  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy import update
from sqlmodel import Session

from app.accounts.users import create_user
from app.core.dialects import make_engine
from app.core.settings import Settings
from app.models.base import utcnow
from app.models.refresh_token import RefreshToken
from app.oauth2.access_tokens import Signers
from app.oauth2.authorization_server import AuthorizationServer, Device, SignIn
from tests.support.databases import SECRET_KEY, fresh_database
from tests.support.servers import Muster

# The instances of a comparison share the issuer, so that a token of one is valid at the others.
ISSUER = "http://localhost:8000"
# Phones that are active at once. Each has its own count in LIMIT_DEFAULT, and its own signature to verify.
SESSIONS = 500
LIFE = timedelta(hours=2)

logging.getLogger("muster").addHandler(logging.NullHandler())  # 500 new sessions need no log lines


@dataclass(frozen=True)
class Testbed:
    """Where a run of scenarios takes place, and how long it measures: `rounds` of `seconds` each."""

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
        settings = Settings(
            environment="test",
            database_url=url,
            secret_keys=(SECRET_KEY,),
            public_url=ISSUER,
            access_token_ttl=LIFE,
            refresh_idle_ttl=LIFE,
            refresh_absolute_ttl=LIFE,
        )
        signers = Signers.derive(settings.secret_keys, settings.public_url)
        server = AuthorizationServer(settings, signers, lambda _session, _snapshot: None)
        device = Device(client_id="bench", device="bench", ip="127.0.0.1", user_agent="wrk")
        engine = make_engine(settings)
        with Session(engine) as session:
            user = create_user(session, email="bench@example.com", name="Ada", password_hash="none")  # noqa: S106  # no hash
            sign_in = SignIn(user.id, user.auth_epoch, device)
            pairs = [server.start_session(session, sign_in, utcnow()) for _ in range(SESSIONS)]
            session.connection().execute(update(RefreshToken).values(confirmed=True))
            session.commit()
        engine.dispose()
        return [pair.access_token for pair in pairs]


def server_process(served: Muster) -> psutil.Process:
    if served.process is None:
        raise ValueError("this instance is not running")
    return psutil.Process(served.process.pid)


def cpu_seconds(served: Muster) -> float:
    """User and kernel time of the server so far, without the processes of the database."""
    times = server_process(served).cpu_times()
    return float(times.user + times.system)


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

"""Served instances of Muster for the tests, with the people who use them."""

import fcntl
import json
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as email_policy
from functools import cache, cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import uuid4
from weakref import finalize

import httpx
from sqlalchemy import CursorResult, Engine, create_engine, text
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from app.accounts.passwords import hash_password
from app.accounts.users import create_user, find_user_by_email
from app.core.crypto import from_base64url
from app.core.settings import Settings
from app.models.base import utcnow
from app.models.refresh_token import TokenPair
from app.models.user import User
from app.oauth2.access_tokens import Signers
from app.oauth2.authorization_server import AuthorizationServer
from app.oauth2.refresh_tokens import Device, SignIn
from tests.support.processes import SETTINGS, PlainProcess, Process
from tests.support.startable import Startable

PASSWORD = "violet-tandem-harbor"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without it each client of httpx reads all trusted certificates
STARTUP = 120.0  # seconds; a condition is waited for, this only ends a wait that is lost

# Below those that Linux hands out. Each worker looks first where the others do not; a lock makes a port its own.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_range = range(20_000, 32_768)
_ports = chain(_range[_worker * 200 % len(_range) :], _range)

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], *, what: str, seconds: float = STARTUP) -> T:
    """Poll `condition` until it returns something true, and return that. The longer it takes, the longer the pauses:
    most conditions are requests, and those of a wait of seconds took a quarter of a core."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        if value := condition():
            return value
        time.sleep(min(0.02 + waited / 50, 0.1))
    raise AssertionError(f"waited {seconds} s for {what}")


@cache
def _claims() -> Path:
    """A folder for all users of this machine, where the file of a port stays."""
    folder = Path(tempfile.gettempdir()) / "tests-ports"
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)
    return folder


def free_port() -> int:
    """A port that no other test run on this machine gets while this process lives, not even that of a renamed copy: the
    claim does not have the project's name."""
    for port in _ports:
        try:
            claim = os.open(_claims() / str(port), os.O_CREAT | os.O_RDWR, 0o666)
        except PermissionError:
            continue  # another user's
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until this process ends
        except OSError:
            os.close(claim)
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


class Tokens(dict[str, Any]):
    """A response of the token endpoint."""

    @property
    def access(self) -> str:
        return str(self["access_token"])

    @property
    def refresh(self) -> str:
        return str(self["refresh_token"])

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access}"}


class Account:
    """A registered person, who signs in with `sign_in`."""

    def __init__(self, muster: "Muster", email: str, password: str) -> None:
        self.muster, self.email, self.password = muster, email, password

    def confirm(self) -> None:
        """Confirm the address by the link that registering mailed to it."""
        token = self.muster.link_token(self.email, subject="Confirm")
        assert self.muster.client.post("/api/auth/verify-email", json={"token": token}).status_code == 204

    def tokens(self) -> Tokens:
        """The tokens of a new session, for tests of something other than signing in: no password is hashed."""
        return Tokens(self._start(in_cookie=False).model_dump())

    def cookie(self) -> str:
        """The cookie of a browser's new session, for which no password is hashed either."""
        return f"muster={self._start(in_cookie=True).access_token}"

    def _start(self, *, in_cookie: bool) -> TokenPair:
        server = authorization_server(frozenset(self.muster.settings.items()))
        device = Device(client_id="app", device="python-httpx", ip="127.0.0.1", user_agent="python-httpx")
        with Session(self.muster.engine) as session:
            user = find_user_by_email(session, self.email)
            assert user is not None
            sign_in = SignIn(user.id, user.auth_epoch, device, method="password", in_cookie=in_cookie)
            started = server.start_session(session, sign_in, utcnow())
            session.commit()
        return started

    def sign_in(self, **form: str) -> Tokens:
        """Sign in by the password grant."""
        answer = self.muster.token(grant_type="password", username=self.email, password=self.password, **form)
        assert answer.status_code == 200, answer.text
        return Tokens(answer.json())


class Muster(Startable):
    """A served instance: real processes, started as ./scripts/serve starts them, with settings of the test's choice."""

    launch: type[Process] = PlainProcess

    def __init__(self, database_url: str, folder: Path, *, app: str | None = None, **settings: str) -> None:
        """`app` serves another application than ./scripts/serve does, such as tests.support.apps.extra_routes:app."""
        self.folder = folder / uuid4().hex[:12]
        self.folder.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_url = database_url
        self.log_file = self.folder / "log"
        self.outbox = self.folder / "outbox"
        self.settings = {
            **SETTINGS,
            "DATABASE_URL": database_url,
            "PORT": str(self.port),
            "MAIL_URL": f"outbox://{self.outbox}",
            **settings,
        }
        self.module = ["scripts.start"]
        if app is not None:
            self.module = ["uvicorn", app, "--port", str(self.port), "--no-access-log", "--no-proxy-headers"]
        self.process: Process | None = None

    def close(self) -> None:
        self.client.close()
        if "engine" in self.__dict__:
            self.engine.dispose()

    def start(self) -> None:
        self.process = self.launch(self.module, {**os.environ, **self.settings}, self.log_file)
        wait_for(self._is_ready, what=f"a ready service, log: {self.log_file}")

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the service ended: {self.log}"
        try:
            return self.client.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Send SIGTERM, and wait for the end, which an idle connection of ours would put off for a second."""
        self.close()
        self.__dict__.pop("client", None)
        if self.process is not None:
            self.process.terminate()
            self.process.wait(STARTUP)
            self.process = None

    def restart(self, **settings: str) -> None:
        """Stop, and start with these settings."""
        self.stop()
        self.settings.update(settings)
        self.start()

    def kill(self) -> None:
        """Send SIGKILL: nothing can be finished or cleaned up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STARTUP)
        self.process = None

    @cached_property
    def client(self) -> httpx.Client:
        """An HTTP client that keeps no cookies: one test's sign-in as a browser would be another test's."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2)
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        return httpx.Client(base_url=self.url, timeout=STARTUP, limits=limits, verify=NO_TLS, cookies=no_cookies)

    def another_client(self) -> httpx.Client:
        """A client with connections of its own, as if from another machine."""
        return httpx.Client(base_url=self.url, timeout=2 * STARTUP, verify=NO_TLS)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def log_after(self, size: int) -> str:
        """The log since the file had that size: the log of a shared instance grows long."""
        with self.log_file.open("rb") as file:
            file.seek(size)
            return file.read().decode()

    def register(self, *, password: str = PASSWORD, name: str | None = None) -> Account:
        email = f"{uuid4().hex}@example.com"
        body = {"email": email, "password": password, **({"name": name} if name else {})}
        answer = self.client.post("/api/auth/register", json=body)
        assert answer.status_code == 201, answer.text
        return Account(self, email, password)

    def new_account(
        self, *, password: str = PASSWORD, name: str | None = None, role: str = "user", is_verified: bool = False
    ) -> Account:
        """Insert an account as registration would, without hashing: a hash for each test took a tenth of the run."""
        email = f"{uuid4().hex}@example.com"
        with Session(self.engine) as session:
            user = User(email=email, name=name, password_hash=hash_of(password), is_verified=is_verified)
            create_user(session, user, role)
            session.commit()
        return Account(self, email, password)

    def admin(self) -> Account:
        return self.new_account(role="admin")

    def token(self, **form: str) -> httpx.Response:
        return self.client.post("/api/auth/token", data=form)

    def refresh(self, refresh_token: str, **form: str) -> httpx.Response:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **form)

    def me(self, tokens: Tokens) -> httpx.Response:
        return self.client.get("/api/users/me", headers=tokens.bearer)

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run one statement beside the service, committed; the rows if it gives any."""
        with self.engine.begin() as connection:
            result: CursorResult[Any] = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    @property
    def on_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite")

    @cached_property
    def engine(self) -> Engine:
        """An engine for looking at the database beside the service, or changing it. On PostgreSQL it keeps a
        connection: connecting takes longer than what most tests do then."""
        if self.on_sqlite:
            return create_engine(self.database_url, poolclass=NullPool, connect_args={"timeout": 30})
        url = self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
        unprepared = {"prepare_threshold": None}  # a test may change a table between two statements
        engine = create_engine(url, pool_size=1, max_overflow=-1, pool_pre_ping=True, connect_args=unprepared)
        finalize(self, engine.dispose)  # some tests look once more after the service has stopped
        return engine

    def mails(self, to: str, *, at_least: int = 1, subject: str = "") -> list[EmailMessage]:
        """The mails to an address, oldest first, once there are enough of them."""

        def enough() -> list[EmailMessage] | None:
            found = [mail for mail in self.sent_mails(to) if subject in str(mail["Subject"])]
            return found if len(found) >= at_least else None

        return wait_for(enough, what=f"{at_least} mails")

    def sent_mails(self, to: str) -> list[EmailMessage]:
        """The mails to an address so far. Reading and parsing those of others took a third of the tests' own time."""
        files = sorted((path.stat().st_mtime_ns, path) for path in self.outbox.glob("*.eml"))
        contents = [content_of(path, written_at) for written_at, path in files]
        mails = [message_from_bytes(content, policy=email_policy) for content in contents if to.encode() in content]
        return [mail for mail in mails if mail["To"] == to]

    def link_token(self, to: str, *, subject: str) -> str:
        """The token in the newest mail with this subject."""
        return text_of(self.mails(to, subject=subject)[-1]).partition("#token=")[2].split()[0]


@cache
def content_of(path: Path, written_at: int) -> bytes:  # noqa: ARG001  # a mail that is sent again replaces its file
    return path.read_bytes()


def text_of(mail: EmailMessage, kind: str = "plain") -> str:
    """The body of a mail: plain text, or HTML with kind="html"."""
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


hash_of = cache(hash_password)


@cache
def authorization_server(environment: frozenset[tuple[str, str]]) -> AuthorizationServer:
    """The AuthorizationServer of an instance with these settings, in the test's own process."""
    with patch.dict(os.environ, dict(environment)):
        settings = Settings()
    signers = Signers(settings.secret_keys, settings.public_url, settings.jwt_private_key_files)
    return AuthorizationServer(settings, signers, lambda *_: None)


def claims_of(access_token: str) -> dict[str, Any]:
    """The payload of a JWT, unverified."""
    decoded: dict[str, Any] = json.loads(from_base64url(access_token.split(".")[1]))
    return decoded

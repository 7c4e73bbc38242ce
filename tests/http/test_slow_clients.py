"""Clients that are slow on purpose: while they are held open the others are served, and afterward nothing is broken.

A slow client here sends a little and then keeps still, until the others have been served: what a byte a second does to
a service is what a byte at a time does, so nothing waits for seconds to pass.
"""

import resource
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from tests.support.databases import fresh_database
from tests.support.processes import PlainProcess
from tests.support.servers import PASSWORD, STARTUP, Muster, Tokens, wait_for
from tests.support.sessions import more_devices

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
MIB = 1024 * 1024
SLOTS = 4
SLOW = 100  # more than there are slots and threads
USUAL_SOFT_LIMIT = 1024  # of open files, on most Linux machines


def request(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


class WithUsualLimit(PlainProcess):
    prefix: ClassVar[list[str]] = ["sh", "-c", f'ulimit -S -n {USUAL_SOFT_LIMIT}; exec "$@"', "sh"]


@pytest.fixture(scope="module")
def muster(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance of this module's own, since its sockets are counted; started by a shell with the usual limit."""
    with fresh_database(kind, folder, postgres) as url:
        served = Muster(url, folder, DB_SLOTS=str(SLOTS))
        served.launch = WithUsualLimit
        with served:
            yield served


@pytest.fixture(scope="module")
def tokens(muster: Muster) -> Tokens:
    return muster.new_account().tokens()


@pytest.fixture(autouse=True)
def whole(muster: Muster, tokens: Tokens) -> Iterator[None]:
    """Check that after each test every socket is closed again, every kind of request is served, and nothing broke."""
    assert muster.process is not None
    process = psutil.Process(muster.process.pid)
    assert_others_are_served(muster, tokens)
    before = len(muster.log)
    yield
    wait_for(lambda: not clients_of(muster, process), what="the end of the slow connections")
    assert_others_are_served(muster, tokens)
    log = muster.log[before:]
    assert "ticket" not in log
    assert "Traceback" not in log


def clients_of(muster: Muster, process: psutil.Process) -> list[Any]:
    """The connections that the service still has, but for those that these tests keep to ask it."""
    ours = {connection.laddr for connection in psutil.Process().net_connections()}
    served = [connection for connection in process.net_connections() if connection.laddr.port == muster.port]
    return [connection for connection in served if connection.raddr and connection.raddr not in ours]


def assert_others_are_served(muster: Muster, tokens: Tokens) -> None:
    """Call every part of the service: the loop, the reading and the writing slots, the threads, the hashing; each on a
    connection of its own, as from another machine."""
    with muster.another_client() as client:
        assert client.get("/health/ready", headers={"Connection": "close"}).status_code == 200
        assert client.get("/api/users/me/sessions", headers=tokens.bearer).status_code == 200
        assert client.patch("/api/users/me", headers=tokens.bearer, json={"name": "Ada"}).status_code == 200
        form = {"grant_type": "password", "username": uuid4().hex, "password": PASSWORD}
        assert client.post("/api/auth/token", data=form).json()["error"] == "invalid_grant"


@contextmanager
def connections(muster: Muster, number: int) -> Iterator[list[socket.socket]]:
    """This number of connections, all open at once and closed at the end."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number + 200, most), most))
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", muster.port), timeout=STARTUP))
            for _ in range(number)
        ]
        for connection in opened:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a byte that is sent leaves at once
        yield opened


def test_1000_idle_connections_keep_nobody_out(muster: Muster, tokens: Tokens) -> None:
    with connections(muster, 1_100):
        for _ in range(5):
            assert_others_are_served(muster, tokens)


def test_a_request_that_comes_a_byte_at_a_time_is_answered_like_any_other(muster: Muster, tokens: Tokens) -> None:
    content = request("GET", "/api/users/me", f"Authorization: {tokens.bearer['Authorization']}", "Connection: close")
    with connections(muster, SLOW // 2) as slow:  # still more than there are threads
        for position in range(len(content)):
            for connection in slow:
                connection.sendall(content[position : position + 1])
            if position % 100 == 0:
                assert_others_are_served(muster, tokens)
        for connection in slow:
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "route",
    [
        ("POST", "/api/auth/register", JSON),
        ("POST", "/api/auth/token", FORM),
        ("POST", "/api/auth/revoke", FORM),
        ("PATCH", "/api/users/me", JSON),
        ("PUT", "/api/users/me/password", JSON),
        ("DELETE", "/api/users/me", JSON),
        ("DELETE", "/api/users/me/sessions/1", JSON),
        ("GET", "/api/users/me", JSON),
        ("POST", "/nowhere", JSON),
    ],
    ids=lambda route: " ".join(route[:2]),
)
def test_a_body_that_never_ends_holds_no_slot_and_no_thread(
    muster: Muster, tokens: Tokens, route: tuple[str, str, str]
) -> None:
    method, path, content_type = route
    bearer = f"Authorization: {tokens.bearer['Authorization']}"
    announced = request(method, path, content_type, bearer, "Content-Length: 900000")
    chunked = request(method, path, content_type, bearer, "Transfer-Encoding: chunked")
    with connections(muster, SLOW) as slow:
        for sent in ((announced, chunked), (b"a", b"1\r\na\r\n"), (b"a", b"1\r\na\r\n")):
            for number, connection in enumerate(slow):
                connection.sendall(sent[number % 2])
            assert_others_are_served(muster, tokens)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n", b"X-A: " + b"a" * 90 + b"\r\n"),
        (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a" * 90),
        (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n", b"A: \r\n"),
        (b"GET /health/live?", b"a" * 90),
        (request("POST", "/api/auth/register", JSON, "Transfer-Encoding: chunked") + b"0\r\n", b"X-A: a\r\n"),
    ],
    ids=["headers", "a header", "empty headers", "an address", "trailers"],
)
def test_a_head_that_never_ends_is_refused(muster: Muster, tokens: Tokens, start: bytes, more: bytes) -> None:
    """A client could fill the memory otherwise: an unfinished head is kept until it ends. A client that goes on sending
    may lose the 400 to the reset that ends the connection."""
    with connections(muster, 1) as [endless]:
        endless.sendall(start)
        with suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(32):
                endless.sendall(more * (MIB // len(more)))
                if select.select([endless], [], [], 0)[0]:
                    assert endless.recv(10) in {b"HTTP/1.1 4", b""}
                    break
            else:
                raise AssertionError("32 MiB were taken")
        assert_others_are_served(muster, tokens)


def test_a_head_that_stays_unfinished_keeps_nobody_out(muster: Muster, tokens: Tokens) -> None:
    with connections(muster, SLOW) as slow:
        for _ in range(3):
            for connection in slow:
                connection.sendall(b"GET /health/live HTTP/1.1\r\nX-A: a\r\nX-B: b")
            assert_others_are_served(muster, tokens)


def test_a_client_that_never_reads_holds_no_slot(muster: Muster, tokens: Tokens) -> None:
    """More than the buffers between here and there hold, asked for by more clients than there are slots."""
    reader = muster.new_account().tokens()
    more_devices(muster, reader, 200)
    bearer = f"Authorization: {reader.bearer['Authorization']}"
    with connections(muster, SLOTS + 2) as deaf:
        for connection in deaf:
            connection.sendall(request("GET", "/api/users/me/sessions?limit=200", bearer) * 80)
        for _ in range(3):
            assert_others_are_served(muster, tokens)


def test_slow_clients_do_not_delay_the_shutdown(serve: Callable[..., Muster]) -> None:
    muster = serve()
    with connections(muster, SLOW) as slow:
        for connection in slow[::2]:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nX-A: a")
        assert muster.process is not None
        process = muster.process
        muster.stop()
    assert process.poll() in {0, -15}

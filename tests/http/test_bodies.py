"""Request bodies that are refused before they are read, that arrive too slowly, or too many at once."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from app.http.bodies import MAX_ARRIVING
from tests.support.hostile import FORM, JSON, PAGE, assert_refused, head, raw
from tests.support.servers import STARTUP, Muster, wait_for

pytestmark = pytest.mark.one_database

MB = 1_000_000
REGISTER = "/api/auth/register"


@contextmanager
def connected(muster: Muster, sent: bytes) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", muster.port), timeout=STARTUP)) as connection:
        connection.sendall(sent)
        yield connection


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize(
    ("target", "content_type", "size", "status"),
    [
        (f"POST {REGISTER}", JSON, 8 * MB, 413),
        ("POST /api/auth/token", FORM, 8 * MB, 413),
        ("POST /api/operations/import", "text/csv", MB, 401),
        ("POST /api/nowhere", JSON, MB, 404),
        (f"PUT {REGISTER}", JSON, MB, 405),
        (f"POST {PAGE}", FORM, MB, 404),
        (f"POST {PAGE}", FORM, 8 * MB, 413),
    ],
)
def test_a_refusal_over_an_unread_body_reaches_a_client_that_sends_all_of_it_first(
    muster: Muster, target: str, content_type: str, size: int, status: int, connection: str
) -> None:
    headers = {"Content-Type": content_type, "Content-Length": str(size), "Connection": connection}
    assert_refused(raw(muster, head(*target.split(), **headers) + b"a" * size), status)


def test_so_does_a_429(serve: Callable[..., Muster]) -> None:
    muster = serve(LIMIT_DEFAULT="1/minute")
    request = head("POST", "/api/operations/import", **{"Content-Length": str(MB), "Connection": "close"})
    statuses = [raw(muster, request + b"a" * MB).status_code for _ in range(3)]
    assert statuses == [401, 429, 429]


@pytest.mark.slow
def test_a_body_that_nobody_reads_is_not_waited_for_long(muster: Muster) -> None:
    with connected(muster, head("GET", "/health/live", **{"Content-Length": "900000"})) as connection:
        while connection.recv(MB):
            pass


@pytest.mark.parametrize("path", [REGISTER, "/api/auth/token", "/api/operations/import"])
def test_a_body_that_stops_is_a_408(serve: Callable[..., Muster], path: str) -> None:
    muster = serve(BODY_TIMEOUT="0.2")
    bearer = muster.new_account().sign_in().bearer
    for framing, start in ({"Content-Length": "900000"}, b"a"), ({"Transfer-Encoding": "chunked"}, b"1\r\na\r\n"):
        content_type = FORM if path.endswith("token") else JSON
        assert_refused(
            raw(muster, head("POST", path, **{"Content-Type": content_type}, **bearer, **framing) + start), 408
        )


def test_one_network_sends_only_so_many_bodies_at_once(muster: Muster) -> None:
    unfinished = head("POST", REGISTER, **{"Content-Type": JSON, "Content-Length": str(MB)}) + b" " * 1000
    whole = head("POST", REGISTER, **{"Content-Type": JSON, "Content-Length": "2"}) + b"{}"
    with ExitStack() as stack:
        sending = [stack.enter_context(connected(muster, unfinished)) for _ in range(MAX_ARRIVING + 1)]
        [refused], _, _ = select.select(sending, [], [], STARTUP)
        assert refused.recv(1000).startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert_refused(raw(muster, whole), 422)
    finished = unfinished + b" " * (MB - 1000)
    wait_for(lambda: raw(muster, finished).status_code == 422, what="the end of the others")

"""Connections without an HTTP client, and whether a service takes them."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPResponse

from tests.support.hostile import head
from tests.support.servers import STARTUP, Muster

LIVE = head("GET", "/health/live")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@contextmanager
def raw_connection(muster: Muster, sent: bytes = b"") -> Iterator[socket.socket]:
    """A connection to the service, on which these bytes were sent."""
    with closing(socket.create_connection(("127.0.0.1", muster.port), timeout=STARTUP)) as connection:
        connection.sendall(sent)
        yield connection


def is_listening(muster: Muster) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", muster.port)) == 0


def assert_each_family_is_known_by_its_own_address(muster: Muster) -> None:
    account = muster.new_account()
    tokens = account.sign_in()
    for url in (muster.url, f"http://[::1]:{muster.port}"):
        assert muster.client.get(f"{url}/metrics").status_code == 200
    chain = "::FFFF:192.0.2.7, ::ffff:10.0.0.1, 10.0.0.2"
    for forwarded, address in ((None, "127.0.0.1"), (chain, "192.0.2.7"), ("2001:db8::7", "2001:db8::7")):
        headers = tokens.bearer | ({"X-Forwarded-For": forwarded} if forwarded else {})
        form = {"grant_type": "password", "username": account.email, "password": account.password}
        assert muster.client.post("/api/auth/token", data=form, headers=headers).status_code == 200
        assert muster.client.get("/api/users/me/sessions", headers=tokens.bearer).json()[0]["ip"] == address


def answer_on(connection: socket.socket) -> HTTPResponse:
    connection.sendall(LIVE)
    answer = HTTPResponse(connection)
    answer.begin()
    assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
    return answer

"""No response names the server, the frameworks or their versions."""

import re
from importlib.metadata import version

import pytest

from tests.support.assertions import assert_problem
from tests.support.hostile import head, raw
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database

MADE_WITH = re.compile(r"(?i)uvicorn|starlette|fastapi|httptools|websockets|python|sqlalchemy|pydantic|jinja")
TELLTALE = {"server", "x-powered-by", "via", "x-aspnet-version", "x-runtime", "x-generator"}
SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
CLOSE = {"Connection": "close"}
REQUESTS = {
    "page": head("GET", "/", **CLOSE),
    "page that needs a sign-in": head("GET", "/operations", **CLOSE),
    "unknown page": head("GET", "/nowhere", **CLOSE),
    "api": head("GET", "/health/ready", **CLOSE),
    "api without a token": head("GET", "/api/users/me", **CLOSE),
    "unknown api route": head("GET", "/api/nowhere", **CLOSE),
    "method": head("DELETE", "/api/auth/token", **CLOSE),
    "token": head("POST", "/api/auth/token", **CLOSE),
    "metrics": head("GET", "/metrics", **CLOSE),
    "static": head("GET", "/static/muster.css", **CLOSE),
    "unknown static file": head("GET", "/static/nothing.css", **CLOSE),
    "redirect": head("GET", "/api/users/me/", **CLOSE),
    "head too large": head("GET", "/api/users/me", **CLOSE, Cookie="a" * 40_000),
    "body too large": head("POST", "/api/auth/register", **CLOSE, **{"Content-Length": "9999999999"}),
    "no HTTP": b"nonsense\r\n\r\n",
    "no HTTP version": b"GET / HTTP/9.9\r\n\r\n",
    "head that does not end": b"GET / HTTP/1.1\r\n" + b"a" * 300_000,
    "socket": head("GET", "/api/chat/ws", **SOCKET),
    "socket at a page": head("GET", "/", **SOCKET),
    "socket with another key": head("GET", "/api/chat/ws", **{**SOCKET, "Sec-WebSocket-Key": "short"}),
    "socket of another version": head("GET", "/api/chat/ws", **{**SOCKET, "Sec-WebSocket-Version": "99"}),
    "half a socket": head("GET", "/api/chat/ws", **CLOSE, Upgrade="websocket"),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_response_does_not_name_software_or_versions(muster: Muster, what: str) -> None:
    answer = raw(muster, REQUESTS[what])
    assert not TELLTALE & set(answer.headers)
    response = f"{answer.headers}" if what in ("metrics", "static") else f"{answer.headers} {answer.text}"
    assert not MADE_WITH.search(response), response[:2000]


def test_an_internal_error_does_not_name_software_or_versions(muster: Muster) -> None:
    """A ticket, and nothing else: the place in the code is in the log alone."""
    muster.sql("ALTER TABLE operation RENAME TO hidden")
    try:
        answer = muster.client.get("/api/operations", headers=muster.new_account().tokens().bearer)
    finally:
        muster.sql("ALTER TABLE hidden RENAME TO operation")
    assert_problem(answer, 500, "internal")
    assert not MADE_WITH.search(f"{answer.headers} {answer.text}")


def test_openapi_names_our_version_alone(muster: Muster) -> None:
    text = muster.client.get("/api/openapi.json").text
    for library in ("uvicorn", "fastapi", "starlette", "sqlmodel", "pydantic"):
        assert version(library) not in text

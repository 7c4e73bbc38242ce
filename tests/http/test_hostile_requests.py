"""Hostile addresses, headers and framing. What HTTP lets us answer is answered, and explained."""

import gzip
import socket
from base64 import b64encode
from contextlib import closing, suppress
from uuid import uuid4

import pytest

from tests.support.hostile import FORM, JSON, OAUTH, SECRET, assert_refused, head, raw
from tests.support.servers import STARTUP, Muster, Tokens, claims_of

pytestmark = [pytest.mark.one_database, pytest.mark.usefixtures("unharmed"), pytest.mark.slow]

REGISTER = "/api/auth/register"


@pytest.fixture(scope="module")
def ada(muster: Muster) -> Tokens:
    """An admin: even the account with the most scopes is refused."""
    return muster.admin().tokens()


# ---- Addresses ----


@pytest.mark.parametrize(
    "target",
    [
        "//api/users/me",
        "/api//users/me",
        "/api/./users/me",
        "/api/users/../users/me",
        "/api/users/%2e%2e/users/me",
        "/api/users/x/..%2fme",
        "/api%2fusers/me",
        "/api/users/me%2fsessions",
        "/api/users%5cme",
        "/api/users/me%00",
        "/api/users/%00",
        "/api/users/me;a=b",
        "/api/users/me.json",
        "/api/users/%6de%20",
        "/api/users/%ED%A0%80",
        "/api/users/%ff%fe",
        "/api/users/%E2%80%AEem",
        "/API/users/me",
        "/api/users/1",
        "/api/users/00000000-0000-0000-0000-000000000000'--",
        "/api/users/me/sessions/" + "1" * 60_000,
        "/" + "a" * 60_000,
        "/" + "a/" * 20_000,
        "/static/%2e%2e/main.py",
        "/static/..%2f..%2fpyproject.toml",
        "/static/..%5cmain.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/docs.html%00.css",
        "/static/%ff",
        "/static/" + "a" * 60_000,
        "*",
    ],
    ids=lambda target: target[:40],
)
def test_an_address_that_only_resembles_one_of_ours_is_refused(muster: Muster, ada: Tokens, target: str) -> None:
    assert_refused(raw(muster, head("GET", target, **ada.bearer, Connection="close")))


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "name",
    ["%00", "me%00", "a%2fb", "..", "%ED%A0%80", "%E2%80%AE", "a" * 51, "a" * 60_000, "'--"],
    ids=lambda name: name if len(name) < 30 else f"{len(name)} characters",
)
def test_a_hostile_name_in_an_address_is_refused(muster: Muster, ada: Tokens, name: str) -> None:
    body = b'{"scopes": ["me"]}'
    request = head("PATCH", f"/api/roles/{name}", **ada.bearer, **{"Content-Type": JSON, "Content-Length": "18"})
    assert_refused(raw(muster, request + body))


@pytest.mark.parametrize(
    "target", ["/api/users/me/", "/api/users/", "/sign-in/", "/static", "/api/operations/?limit=1"]
)
def test_a_trailing_slash_is_a_404_and_not_a_redirect_to_the_host_behind_the_proxy(
    muster: Muster, ada: Tokens, target: str
) -> None:
    """Outside of the API, the 404 is a page."""
    assert muster.client.get(target, headers=ada.bearer).status_code == 404


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 5000, "%39" * 5000], ids=len)
@pytest.mark.parametrize("path", ["/operations/{}", "/api/operations/{}", "/api/heroes/{}/teams/1", "/static/{}"])
def test_an_id_with_too_many_digits_is_a_404(muster: Muster, ada: Tokens, path: str, digits: str) -> None:
    answer = muster.client.get(path.format(digits), headers=ada.bearer)
    assert (answer.status_code, "number" in answer.text) == (404, False)


def test_ten_thousand_parameters_are_refused(muster: Muster, ada: Tokens) -> None:
    query = "&".join(["a=1"] * 10_000)
    for path in ("/api/users/me/sessions", "/api/users", "/health/live", "/nowhere"):
        assert_refused(raw(muster, head("GET", f"{path}?{query}", **ada.bearer, Connection="close")), 414, 431)


@pytest.mark.parametrize(
    "request_line",
    [
        f"GET /{'a' * 70_000} HTTP/1.1",
        f"GET /api/users/me?{'limit=1&' * 10_000} HTTP/1.1",
        "GET /api/users/me\xff HTTP/1.1",
        "GET /api/users/m\x00e HTTP/1.1",
        "GET /api/users/me? a=b HTTP/1.1",
        "GET  HTTP/1.1",
        "GET api/users/me HTTP/1.1",
        "SUDO /api/users/me HTTP/1.1",
        "GET /api/users/me HTTP/9.9",
        "PRI * HTTP/2.0",
        "CONNECT localhost:80 HTTP/1.1",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda line: ascii(line)[:30],
)
def test_malformed_http_is_a_400_from_the_server_itself(muster: Muster, request_line: str) -> None:
    """uvicorn's parser answers these, in plain text, before there is anything that the application could answer."""
    answer = raw(muster, f"{request_line}\r\nHost: localhost\r\n\r\n".encode("latin-1"))
    assert (answer.status_code, answer.text) == (400, "Invalid HTTP request received.")


# ---- Headers ----


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a" * 100_000},
        {f"X-{number}": "a" for number in range(10_000)},
        {"Authorization": f"Bearer {'a' * 100_000}"},
        {"Cookie": "a=b; " * 20_000},
        {"Content-Type": JSON + ";" * 100_000},
        {"Accept-Encoding": "gzip, " * 20_000},
        {"X-Forwarded-For": "10.0.0.1, " * 10_000},
        {"Host": "a" * 100_000},
    ],
    ids=lambda headers: f"{len(headers)} {next(iter(headers))}",
)
def test_100_kilobytes_of_headers_are_refused(muster: Muster, headers: dict[str, str]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **headers}.items())
    for target in ("GET /api/users/me", "GET /health/live", f"POST {OAUTH[0]}"):
        answer = raw(muster, f"{target} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n".encode())
        assert_refused(answer, 431)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer \xff\xfe"},
        {"Authorization": "Bearer  "},
        {"Authorization": "Bearer a\tb"},
        {"Authorization": "Basic \xff"},
        {"Authorization": "\xe2\x80\xae"},
        {"X-Request-ID": "\xff", "User-Agent": "\x80" * 1000, "Origin": "\xff"},
        {"Host": "a b"},
        {"Host": 'evil"><script>'},
        {"Host": "\xff"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": ""},
        {"X-HTTP-Method-Override": "DELETE"},
    ],
    ids=lambda headers: ascii(headers)[:40],
)
def test_hostile_headers_without_a_token_are_a_401_like_any_others(muster: Muster, headers: dict[str, str]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **headers}.items())
    answer = raw(muster, f"GET /api/users/me HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
    assert_refused(answer, 401)
    assert "\xff" not in answer.headers["x-request-id"]


@pytest.mark.parametrize("target", ["GET /api/users/me", "POST /api/auth/token", "GET /health/live", "GET /a/page"])
@pytest.mark.parametrize(
    "hosts", ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nHost: b\r\n"], ids=["none", "twice", "two"]
)
def test_a_request_must_name_exactly_one_host(muster: Muster, target: str, hosts: str) -> None:
    """RFC 9112 section 3.2. HTTP/1.0, which some health checks speak, has no such rule."""
    handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    for more in ("", f"{handshake}Sec-WebSocket-Key: {b64encode(bytes(16)).decode()}\r\n"):
        assert_refused(raw(muster, f"{target} HTTP/1.1\r\n{hosts}{more}\r\n".encode()), 400)
    assert raw(muster, b"GET /health/live HTTP/1.0\r\n\r\n").status_code == 200


def test_links_ignore_a_hostile_host_header(muster: Muster, ada: Tokens) -> None:
    for host in ('evil"><script>', "a b", "x/y?z#", "user@evil"):
        request = head("GET", "/api/users?limit=1", **ada.bearer, Connection="close")
        muster.new_account()
        answer = raw(muster, request.replace(b"Host: localhost", f"Host: {host}".encode()))
        assert answer.status_code == 200
        assert answer.headers["link"].startswith("</api/users?limit=1&after=")


@pytest.mark.both_databases
def test_device_and_user_agent_are_stored_printable_and_truncated(muster: Muster) -> None:
    account = muster.new_account()
    form = {"grant_type": "password", "username": account.email, "password": account.password}
    device = {"device": f"\x1b[31m{'a' * 500}\u2028"}
    headers = [(b"User-Agent", b"\x80\xff" * 1000)]
    tokens = Tokens(muster.client.post(OAUTH[0], data={**form, **device}, headers=headers).json())
    session = muster.client.get("/api/users/me/sessions", headers=tokens.bearer).json()[0]
    assert session["device"] == f"[31m{'a' * 96}"
    assert session["user_agent"] == "\xff" * 255
    assert session["id"] == claims_of(tokens.access)["sid"]


# ---- Framing ----


def chunked(path: str, content_type: str, size: int, **more: str) -> bytes:
    """A body whose length no header announces."""
    headers = {"Content-Type": content_type, "Transfer-Encoding": "chunked", **more}
    chunk = b"10000\r\n" + SECRET.encode().ljust(0x10000, b"a") + b"\r\n"
    return head("POST", path, **headers) + chunk * (size // 0x10000) + b"0\r\n\r\n"


@pytest.mark.parametrize(("path", "content_type"), [(REGISTER, JSON), *[(path, FORM) for path in OAUTH]])
def test_a_chunked_body_beyond_the_limit_is_a_413(muster: Muster, admin: Tokens, path: str, content_type: str) -> None:
    assert_refused(raw(muster, chunked(path, content_type, 10_000_000, **admin.bearer)), 413)


def test_an_announced_body_beyond_the_limit_is_refused_before_it_is_sent(muster: Muster) -> None:
    for path, content_type in ((REGISTER, JSON), *[(path, FORM) for path in OAUTH]):
        headers = {"Content-Type": content_type, "Content-Length": str(10**12), "Expect": "100-continue"}
        assert_refused(raw(muster, head("POST", path, **headers)), 413)


def test_a_connection_lives_on_after_a_body_beyond_the_limit(muster: Muster) -> None:
    with muster.another_client() as client:
        refused = client.post(REGISTER, content=b"a" * 10_000_000, headers={"Content-Type": JSON})
        before = refused.extensions["network_stream"].get_extra_info("client_addr")
        again = client.get("/health/live")
        assert again.extensions["network_stream"].get_extra_info("client_addr") == before
    assert_refused(refused, 413)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "-1"},
        {"Content-Length": "9" * 30},
        {"Content-Length": "1e3"},
        {"Content-Length": "3, 4"},
        {"Content-Length": "3", "Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "gzip, chunked, identity"},
        {"Transfer-Encoding": "chunked", "X-A": "a\x00b"},
        {"X A": "b"},
    ],
    ids=str,
)
def test_ambiguous_framing_is_a_400_from_the_server_itself(muster: Muster, headers: dict[str, str]) -> None:
    request = head("POST", REGISTER, **{"Content-Type": JSON}, **headers)
    assert raw(muster, request + b"zz\r\n{}\r\n0\r\n\r\n").status_code == 400


def test_thousands_of_pipelined_requests_end_their_connection(muster: Muster) -> None:
    """Others would wait for seconds until all are parsed. A hundred are more than any client sends ahead."""
    live = head("GET", "/health/live")
    with closing(socket.create_connection(("127.0.0.1", muster.port), timeout=STARTUP)) as connection:
        connection.sendall(live * 1000 + head("GET", "/health/live", Connection="close"))
        answers = b""
        with suppress(ConnectionResetError):
            while received := connection.recv(2**16):
                answers += received
    assert answers.count(b"HTTP/1.1 200 ") < 200


def test_trailers_of_a_chunked_body_are_not_taken_for_headers(muster: Muster, ada: Tokens) -> None:
    """A proxy adds its headers in front, and may pass on the trailers of anybody (RFC 9110 section 6.5.1)."""
    request = head("POST", "/api/tasks", **{"Content-Type": JSON, "Transfer-Encoding": "chunked"}) + b"2\r\n{}\r\n0\r\n"
    trailers = "".join(f"{name}: {value}\r\n" for name, value in (ada.bearer | {"Host": "evil.example"}).items())
    assert_refused(raw(muster, request + trailers.encode() + b"\r\n"), 401)


def test_a_second_request_behind_a_refused_one_is_answered_too(muster: Muster) -> None:
    """Pipelined: a refusal of the first request must not lose the second."""
    body = gzip.compress(SECRET.encode())
    first = head("POST", REGISTER, **{"Content-Type": JSON, "Content-Length": str(len(body))}) + body
    second = head("GET", "/health/live", **{"X-Request-ID": uuid4().hex, "Connection": "close"})
    answers = raw(muster, first + second)
    assert_refused(answers)

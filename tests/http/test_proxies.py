"""A service behind nginx and behind Caddy, each over TLS and as deploy/ sets it up."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.assertions import assert_problem
from tests.support.certificates import self_signed
from tests.support.databases import fresh_database
from tests.support.proxies import CLIENT, PROXIES, Proxy
from tests.support.servers import NO_TLS, STARTUP, Muster, Tokens
from tests.support.sockets import new_room, post

pytestmark = pytest.mark.one_database

OPERATION = {"type": "buy", "figi": "BBG000B9XRY4", "quantity": "1", "date": "2026-01-31T12:00:00Z"}
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def behind(folder: Path, postgres: str) -> Iterator[Muster]:
    settings = {"TRUSTED_PROXIES": "127.0.0.1", "IMPORT_MAX_BODY": str(3 * MEBIBYTE)}
    with fresh_database("sqlite", folder, postgres) as url, Muster(url, folder, **settings) as served:
        yield served


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, behind: Muster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(request.param, behind, self_signed(tmp_path_factory.mktemp("certificate"))) as started:
        yield started


@pytest.fixture(scope="module")
def tokens(behind: Muster) -> Tokens:
    return behind.new_account().tokens()


def test_the_service_sees_the_address_of_the_client_whatever_headers_it_sends(behind: Muster, proxy: Proxy) -> None:
    account = behind.new_account()
    form = {"grant_type": "password", "username": account.email, "password": account.password}
    lies = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "Forwarded": "for=203.0.113.9"}
    signed_in = Tokens(proxy.client.post("/api/auth/token", data=form, headers=lies).json())
    (session,) = proxy.client.get("/api/users/me/sessions", headers=signed_in.bearer).json()
    assert session["ip"] == CLIENT
    fields = {"username": account.email, "password": account.password}
    page = proxy.client.post("/sign-in", data=fields, headers={"Origin": proxy.url, **lies})
    assert (page.status_code, page.headers["location"]) == (303, "/operations")
    assert "muster=" in page.headers["set-cookie"]
    assert proxy.client.post("/sign-in", data=fields, headers={"Origin": "https://evil.example"}).status_code == 403
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-request-id"]
    assert not any(sign in page.headers.get("server", "") for sign in "/0123456789")


def test_messages_of_a_socket_and_a_stream_pass_without_delay(behind: Muster, proxy: Proxy, tokens: Tokens) -> None:
    room = new_room()

    async def talk() -> None:
        """Send and receive in one thread, because OpenSSL can lose what one thread writes while another reads."""
        address = f"wss://localhost:{proxy.port}/api/chat/ws?room={room}"
        async with (
            connect(address, ssl=proxy.tls, additional_headers=tokens.bearer, compression=None) as socket,
            httpx.AsyncClient(base_url=proxy.url, verify=proxy.tls, timeout=STARTUP) as client,
            client.stream("GET", f"/api/chat/events?room={room}", headers=tokens.bearer) as stream,
            asyncio.timeout(STARTUP),
        ):
            assert json.loads(await socket.recv())["type"] == "ready"
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith(": the last number is ")
            await asyncio.to_thread(post, behind, tokens, "Hello", room)
            assert json.loads(await socket.recv())["text"] == "Hello"
            data = await anext(line async for line in lines if line.startswith("data: "))
            assert json.loads(data.removeprefix("data: "))["text"] == "Hello"

    asyncio.run(talk())


def test_the_service_itself_decides_which_bodies_are_too_large(proxy: Proxy, tokens: Tokens) -> None:
    # If nginx answers before it has the whole body, it closes the connection afterward without announcing it.
    headers = {**tokens.bearer, "Content-Type": "text/csv", "Connection": "close"}
    wrong = b"type,figi,quantity,date\nbuy,BBG000B9XRY4,none,2026-01-31T12:00:00Z\n"
    taken = proxy.client.post("/api/operations/import", content=wrong + b"\n" * 2 * MEBIBYTE, headers=headers)
    assert taken.json()["line"] == 2
    for path, size in (("/api/operations/import", 4 * MEBIBYTE), ("/api/operations", 2 * MEBIBYTE)):
        refused = proxy.client.post(path, content=b"a" * size, headers=headers)
        assert_problem(refused, 413, "content-too-large")


def test_etags_stay_strong_though_bodies_are_compressed(proxy: Proxy, behind: Muster) -> None:
    bearer = behind.new_account().tokens().bearer
    for _ in range(5):
        created = proxy.client.post("/api/operations", json=OPERATION, headers=bearer)
    place = created.headers["location"]
    listed = proxy.client.get("/api/operations?limit=4", headers={**bearer, "Accept-Encoding": "gzip"})
    assert (listed.headers["content-encoding"], listed.headers["etag"][0], len(listed.json())) == ("gzip", '"', 4)
    assert listed.headers["link"].startswith("</api/operations?")
    again = proxy.client.get("/api/operations?limit=4", headers={**bearer, "If-None-Match": listed.headers["etag"]})
    assert again.status_code == 304
    tag = proxy.client.get(place, headers=bearer).headers["etag"]
    changed = proxy.client.patch(place, json={"type": "sell"}, headers={**bearer, "If-Match": tag})
    assert (changed.status_code, changed.json()["type"]) == (200, "sell")


def test_plain_http_is_redirected_to_the_same_address(proxy: Proxy) -> None:
    answer = httpx.get(f"http://localhost:{proxy.http_port}/verify-email?next=/a%20b", verify=NO_TLS)
    assert answer.status_code == 308
    address = httpx.URL(answer.headers["location"])
    assert (address.scheme, address.host, address.raw_path) == ("https", "localhost", b"/verify-email?next=/a%20b")

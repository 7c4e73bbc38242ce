"""Every response: one shape for errors, a request id, caching headers, CORS, and never a secret."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.assertions import assert_oauth_error, assert_problem
from tests.support.databases import fresh_database
from tests.support.servers import PASSWORD, Muster, Tokens, wait_for

pytestmark = pytest.mark.one_database

ORIGIN = "https://app.example"
FOREIGN = "https://attacker.example"
EXPOSED = {"ETag", "Link", "Location", "Next-Cursor", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID"}
ALLOWED = "authorization, content-type, if-match, if-none-match, idempotency-key, last-event-id, x-request-id"
CANARY = "Qk7-canary-Zx9"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def browsed(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance that a page of another origin may call, and that logs each request."""
    settings = {"CORS_ORIGINS": f"{ORIGIN}, http://localhost:5173", "ENVIRONMENT": "development"}
    with fresh_database(kind, folder, postgres) as url, Muster(url, folder, **settings) as served:
        yield served


@contextmanager
def broken(muster: Muster) -> Iterator[None]:
    """An instance where a table is missing, so that a sign-in is an internal error."""
    muster.sql("ALTER TABLE refresh_token RENAME TO hidden")
    try:
        yield
    finally:
        muster.sql("ALTER TABLE hidden RENAME TO refresh_token")


def sign_in(muster: Muster, email: str, **headers: str) -> httpx.Response:
    form = {"grant_type": "password", "username": email, "password": PASSWORD, "device": CANARY}
    return muster.client.post("/api/auth/token", data=form, headers=headers)


def errors(muster: Muster, **headers: str) -> Iterator[httpx.Response]:
    """One response of each kind of error that is easy to provoke."""
    client, big = muster.client, b"x" * (1024 * 1024 + 1)
    yield client.get("/api/users/me", headers=headers)
    yield client.get("/api/nowhere", headers=headers)
    yield client.get("/api/auth/register", headers=headers)
    yield client.post("/api/auth/register", content=big, headers=JSON | headers)
    yield client.post("/api/auth/register", json={}, headers=headers)
    yield client.post("/api/auth/verify-email", json={"token": "x"}, headers=headers)
    yield client.get("/api/auth/token", headers=headers)
    yield client.post("/api/auth/token", content=big, headers=headers)
    yield client.post("/api/auth/revoke", headers=headers)
    email = muster.register().email
    yield client.post("/api/auth/register", json={"email": email, "password": PASSWORD}, headers=headers)
    with broken(muster):
        yield sign_in(muster, email, **headers)


STATUSES = [401, 404, 405, 413, 422, 400, 405, 413, 400, 409, 500]


# ---- The shape of an error ----


@pytest.mark.both_databases
def test_every_error_has_the_one_shape_of_its_endpoint(browsed: Muster) -> None:
    answers = list(errors(browsed))
    assert [answer.status_code for answer in answers] == STATUSES
    for answer in answers:
        if answer.url.path in {"/api/auth/token", "/api/auth/revoke"}:
            assert_oauth_error(answer, answer.status_code, answer.json()["error"])
        else:
            assert_problem(answer, answer.status_code, answer.json()["type"].removeprefix("/problems/"))


@pytest.mark.parametrize(
    "path", ["/health/nowhere", "/api", "/api/", "/api/nowhere", "/api/users/me/x", "/.well-known/x"]
)
def test_an_unknown_address_is_a_problem(muster: Muster, path: str) -> None:
    assert_problem(muster.client.get(path), 404, "not-found")


def test_a_405_names_the_methods_that_are_allowed(muster: Muster) -> None:
    assert_problem(answer := muster.client.put("/api/users/me"), 405, "method-not-allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "7", '"x"', "{}", '{"email": "a@example.com"}', "\x00"])
def test_the_refusal_of_an_invalid_body_names_the_place_and_the_reason(muster: Muster, body: str) -> None:
    answer = muster.client.post("/api/auth/register", content=body, headers=JSON)
    assert_problem(answer, 422, "invalid")
    found = answer.json()["errors"]
    assert found
    assert all(set(error) == {"loc", "msg", "type"} and error["loc"][0] == "body" for error in found)


@pytest.mark.both_databases
def test_a_server_error_shows_a_ticket_that_is_in_the_log_and_nothing_else(browsed: Muster) -> None:
    email, request_id = browsed.register().email, uuid4().hex
    with broken(browsed):
        answer = sign_in(browsed, email, **{"X-Request-ID": request_id, "Origin": ORIGIN})
    assert_oauth_error(answer, 500, "server_error")
    ticket = answer.json()["ticket"]
    assert ticket in answer.json()["detail"]
    assert f"[{request_id}] ticket {ticket}: POST /api/auth/token" in browsed.log
    assert "refresh_token" not in answer.text
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert sign_in(browsed, email).status_code == 200


# ---- The headers ----


def test_a_sane_request_id_is_kept_and_logged(browsed: Muster) -> None:
    for sane in ("a", "x" * 64, "7f3a.b_c-D", str(uuid4())):
        answer = browsed.client.get("/api/nowhere", headers={"X-Request-ID": sane})
        assert answer.headers.get_list("x-request-id") == [sane]
    assert wait_for(lambda: f"[{sane}] GET" in browsed.log, what="the line in the log")


@pytest.mark.parametrize("mad", [b"", b"x" * 65, b"a b", b"a;b", b"<b>", b"\xe9", b"a\tb", b"../x"])
def test_any_other_request_id_is_replaced(muster: Muster, mad: bytes) -> None:
    ids = [muster.client.get("/health/live", headers=[(b"X-Request-ID", mad)]).headers["x-request-id"] for _ in "12"]
    assert ids[0] != ids[1]
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


def test_every_response_has_an_id_and_is_private_by_default(browsed: Muster) -> None:
    tokens = browsed.register().sign_in()
    fine = [browsed.me(tokens), browsed.client.get("/api/users/me/sessions", headers=tokens.bearer)]
    for answer in [*fine, *errors(browsed)]:
        assert len(answer.headers.get_list("x-request-id")) == 1
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.headers["cache-control"] != "no-store":
            assert answer.headers["cache-control"] == "private, no-cache"
            assert {"Authorization", "Cookie"} <= vary(answer)


def vary(answer: httpx.Response) -> set[str]:
    return {name.strip() for value in answer.headers.get_list("vary") for name in value.split(",")}


@pytest.mark.slow
def test_a_long_response_is_compressed_on_request(browsed: Muster) -> None:
    wishes = {
        "gzip": "gzip",
        "br, gzip;q=0.1": "gzip",
        "identity": None,
        "gzip;q=0": None,
        "br, gzip ; q=0.000": None,
        "gzip;q=0, identity": None,
    }
    for encoding, given in wishes.items():
        answer = browsed.client.get("/api/openapi.json", headers={"Accept-Encoding": encoding})
        assert answer.headers.get("content-encoding") == given, encoding
        assert {"Accept-Encoding", "Authorization", "Cookie"} <= vary(answer)


def test_static_files_are_compressed_once(browsed: Muster) -> None:
    path, accepted = "/static/swagger/swagger-ui-bundle.js", {"Accept-Encoding": "gzip"}
    once, again = (browsed.client.get(path, headers=accepted) for _ in range(2))
    plain = browsed.client.get(path, headers={"Accept-Encoding": "identity"})
    assert once.content == again.content == plain.content
    assert int(once.headers["content-length"]) < len(plain.content) / 2, (
        "known before it is sent: compressed as a whole"
    )
    assert once.headers["content-type"] == plain.headers["content-type"]
    assert {once.headers["etag"], plain.headers["etag"]} == {again.headers["etag"]}
    known = browsed.client.get(path, headers=accepted | {"If-None-Match": once.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.slow
def test_head_is_answered_wherever_get_is(browsed: Muster) -> None:
    """HEAD has no body, even where that of GET is a stream without an end; monitors send it."""
    bearer = browsed.new_account().sign_in().bearer
    paths = ("/health/live", "/health/ready", "/api/users/me", "/api/operations", "/api/operations/export", "/sign-in")
    for path in (*paths, "/api/nowhere", "/api/chat/events", "/static/muster.css", "/.well-known/jwks.json"):
        asked = browsed.client.head(path, headers=bearer)
        with browsed.client.stream("GET", path, headers=bearer) as got:
            assert (asked.status_code, asked.content) == (got.status_code, b""), path
            same = {"content-type", "content-length", "etag", "cache-control"}
            assert {n: asked.headers.get(n) for n in same} == {n: got.headers.get(n) for n in same}, path
    assert "HEAD" in browsed.client.put("/api/operations").headers["allow"]


# ---- Other origins ----


@pytest.mark.slow
def test_an_allowed_origin_reads_every_response_and_a_foreign_one_none(browsed: Muster) -> None:
    tokens = browsed.register().sign_in()
    for answer in [
        browsed.client.get("/api/users/me", headers=tokens.bearer | {"Origin": ORIGIN}),
        *errors(browsed, Origin=ORIGIN),
    ]:
        assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN], answer.status_code
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert set(answer.headers["access-control-expose-headers"].split(", ")) == EXPOSED
        assert "Origin" in vary(answer)
    for origin in (FOREIGN, "null", f"{ORIGIN}.attacker.example", ORIGIN.replace("https", "http")):
        answer = browsed.client.get("/api/users/me", headers=tokens.bearer | {"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_preflight_of_an_allowed_origin_passes_and_of_a_foreign_one_fails(browsed: Muster, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": ALLOWED}
    passed = browsed.client.options("/api/users/me", headers=asked | {"Origin": ORIGIN})
    assert (passed.status_code, passed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert method in passed.headers["access-control-allow-methods"]
    refused = browsed.client.options("/api/users/me", headers=asked | {"Origin": FOREIGN})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    assert passed.headers["x-request-id"] != refused.headers["x-request-id"]


def test_without_cors_origins_no_other_origin_is_allowed(muster: Muster) -> None:
    answer = muster.client.get("/health/live", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


# ---- Secrets ----


@pytest.mark.both_databases
def test_a_refusal_never_repeats_what_was_sent(browsed: Muster) -> None:
    admin = browsed.admin().tokens()
    bodies: list[tuple[str, str, Any]] = [
        ("POST", "auth/register", {"email": CANARY, "password": CANARY}),
        ("POST", "auth/register", {"email": [CANARY], "password": {"x": CANARY}, "name": f"{CANARY}\0"}),
        ("POST", "auth/register", {"email": "a@example.com", "password": CANARY * 100}),
        ("POST", "auth/register", CANARY),
        ("POST", "auth/register", [CANARY]),
        ("POST", "auth/forgot-password", {"email": CANARY}),
        ("POST", "auth/reset-password", {"token": CANARY * 20, "new_password": [CANARY]}),
        ("POST", "auth/verify-email", {"token": {CANARY: CANARY}}),
        ("PUT", "users/me/password", {"current_password": [CANARY], "new_password": CANARY}),
        ("PUT", "users/me/email", {"current_password": CANARY, "email": CANARY}),
        ("PATCH", "users/me", {"name": CANARY * 10, "role": CANARY}),
        ("PATCH", "users/01a20be7-0000-7000-8000-000000000000", {"role": [CANARY], "is_active": CANARY}),
        ("PATCH", "roles/user", {"scopes": [CANARY]}),
        ("GET", f"users?limit={CANARY}", None),
        ("GET", f"users?after={CANARY}", None),
        ("GET", f"users/{CANARY}", None),
    ]
    for method, path, body in bodies:
        answer = browsed.client.request(method, f"/api/{path}", json=body, headers=admin.bearer)
        assert_problem(answer, 422, "invalid")
        assert CANARY not in answer.text, (method, path, body)
    malformed = f'{{"password": "{CANARY}"'
    answer = browsed.client.post("/api/auth/register", content=malformed, headers=JSON)
    assert answer.status_code == 422
    assert CANARY not in answer.text
    assert CANARY not in browsed.log


@pytest.mark.slow
@pytest.mark.both_databases
def test_no_password_token_or_address_reaches_the_log(browsed: Muster) -> None:
    size = browsed.log_file.stat().st_size
    client, account = browsed.client, browsed.register()
    first, second = account.sign_in(), account.sign_in(device=CANARY)
    secrets = {PASSWORD, account.email, *first.values(), *second.values()}
    client.post("/api/auth/token", data={"grant_type": "password", "username": account.email, "password": CANARY})
    client.post("/api/auth/token", params={"refresh_token": CANARY}, data={"grant_type": "refresh_token"})
    client.get(f"/api/users/me?access_token={CANARY}", headers={"Authorization": f"Bearer {CANARY}", "Cookie": CANARY})
    client.get(f"/{CANARY}", headers={"Referer": CANARY})
    following = Tokens(browsed.refresh(first.refresh).json())
    newest = Tokens(browsed.refresh(following.refresh).json())
    assert browsed.me(newest).status_code == 200
    assert browsed.refresh(first.refresh).status_code == 400  # a theft, which is logged
    client.post("/api/auth/forgot-password", json={"email": account.email})
    reset = browsed.link_token(account.email, subject="Reset")
    client.post("/api/auth/verify-email", json={"token": browsed.link_token(account.email, subject="Confirm")})
    with broken(browsed):
        assert sign_in(browsed, account.email, **{"User-Agent": CANARY}).status_code == 500
    client.post("/api/auth/reset-password", json={"token": reset, "new_password": CANARY})
    client.post("/api/auth/revoke", data={"token": second.refresh})

    secrets |= {CANARY, reset, *following.values(), *newest.values()}
    log, new = browsed.log, browsed.log_after(size)
    for line in ("POST /api/auth/token 200", "POST /api/auth/reset-password 204", "token-reused", "Traceback"):
        assert line in new
    texts = {str(secret) for secret in secrets if isinstance(secret, str) and len(secret) > 10}
    assert not [secret for secret in texts - {first["scope"]} if secret in log]
    assert json.dumps(PASSWORD) not in log

"""Every route in one table: who may call it. Compared with OpenAPI, then called by those who may and who may not.

A new route fails here until it stands in the table, and until OpenAPI says the same of it.
"""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.core.scopes import SCOPES
from tests.support.hostile import BODIES, OAUTH
from tests.support.phones import COURSE
from tests.support.servers import Muster, Tokens, claims_of

pytestmark = pytest.mark.one_database

PUBLIC = None

ROUTES: dict[tuple[str, str], str | None] = {
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("GET", "/.well-known/jwks.json"): PUBLIC,
    ("GET", "/.well-known/oauth-authorization-server"): PUBLIC,
    ("POST", "/api/auth/register"): PUBLIC,
    ("POST", "/api/auth/token"): PUBLIC,
    ("POST", "/api/auth/revoke"): PUBLIC,
    ("POST", "/api/auth/introspect"): "tokens:introspect",
    ("POST", "/api/auth/cookie/login"): PUBLIC,
    ("POST", "/api/auth/cookie/logout"): PUBLIC,
    ("POST", "/api/auth/forgot-password"): PUBLIC,
    ("POST", "/api/auth/request-verification"): PUBLIC,
    ("POST", "/api/auth/reset-password"): PUBLIC,
    ("POST", "/api/auth/verify-email"): PUBLIC,
    ("GET", "/api/users/me"): "me",
    ("PATCH", "/api/users/me"): "me",
    ("DELETE", "/api/users/me"): "me",
    ("PUT", "/api/users/me/password"): "me",
    ("PUT", "/api/users/me/email"): "me",
    ("GET", "/api/users/me/sessions"): "me",
    ("DELETE", "/api/users/me/sessions"): "me",
    ("DELETE", "/api/users/me/sessions/{session_id}"): "me",
    ("GET", "/api/users"): "users:read",
    ("GET", "/api/users/{user_id}"): "users:read",
    ("PATCH", "/api/users/{user_id}"): "users:write",
    ("DELETE", "/api/users/{user_id}"): "users:write",
    ("GET", "/api/users/{user_id}/sessions"): "users:read",
    ("DELETE", "/api/users/{user_id}/sessions"): "users:write",
    ("GET", "/api/roles"): "users:read",
    ("PATCH", "/api/roles/{name}"): "users:write",
    ("GET", "/api/clients"): "users:read",
    ("POST", "/api/clients"): "users:write",
    ("PATCH", "/api/clients/{client_id}"): "users:write",
    ("DELETE", "/api/clients/{client_id}"): "users:write",
    ("GET", "/api/operations"): "operations:read",
    ("POST", "/api/operations"): "operations:write",
    ("GET", "/api/operations/changes"): "operations:read",
    ("GET", "/api/operations/summary"): "operations:read",
    ("GET", "/api/operations/export"): "operations:read",
    ("POST", "/api/operations/import"): "operations:write",
    ("GET", "/api/operations/{operation_id}"): "operations:read",
    ("PUT", "/api/operations/{operation_id}"): "operations:write",
    ("PATCH", "/api/operations/{operation_id}"): "operations:write",
    ("DELETE", "/api/operations/{operation_id}"): "operations:write",
    ("GET", "/api/heroes"): "heroes:read",
    ("POST", "/api/heroes"): "heroes:write",
    ("GET", "/api/heroes/{hero_id}"): "heroes:read",
    ("PATCH", "/api/heroes/{hero_id}"): "heroes:write",
    ("DELETE", "/api/heroes/{hero_id}"): "heroes:write",
    ("GET", "/api/teams"): "heroes:read",
    ("POST", "/api/teams"): "heroes:write",
    ("GET", "/api/teams/{team_id}"): "heroes:read",
    ("PATCH", "/api/teams/{team_id}"): "heroes:write",
    ("DELETE", "/api/teams/{team_id}"): "heroes:write",
    ("GET", "/api/heroes/{hero_id}/teams"): "heroes:read",
    ("GET", "/api/teams/{team_id}/heroes"): "heroes:read",
    ("PUT", "/api/heroes/{hero_id}/teams/{team_id}"): "heroes:write",
    ("DELETE", "/api/heroes/{hero_id}/teams/{team_id}"): "heroes:write",
    ("GET", "/api/tasks"): "tasks",
    ("POST", "/api/tasks"): "tasks",
    ("GET", "/api/tasks/assignees"): "tasks",
    ("GET", "/api/tasks/{task_id}"): "tasks",
    ("PATCH", "/api/tasks/{task_id}"): "tasks",
    ("DELETE", "/api/tasks/{task_id}"): "tasks",
    ("GET", "/api/tasks/{task_id}/history"): "tasks",
    ("GET", "/api/chat/messages"): "chat",
    ("POST", "/api/chat/messages"): "chat",
    ("GET", "/api/chat/events"): "chat",
    ("GET", "/api/jobs"): "jobs",
    ("POST", "/api/jobs/statement"): "jobs",
    ("GET", "/api/jobs/{job_id}"): "jobs",
    ("DELETE", "/api/jobs/{job_id}"): "jobs",
    ("GET", "/api/jobs/{job_id}/result"): "jobs",
}
# For people and browsers, so not in OpenAPI.
PAGES = ["/", "/api/docs", "/api/openapi.json", "/static/docs.html"]


def _operation(muster: Muster, tokens: Tokens) -> int:
    return int(muster.client.post("/api/operations", json=COURSE, headers=tokens.bearer).json()["id"])


def _job(muster: Muster, tokens: Tokens) -> str:
    return str(muster.client.post("/api/jobs/statement", json={}, headers=tokens.bearer).json()["id"])


# How somebody else's thing is named in the address of a route that knows only one's own things.
FOREIGN: dict[tuple[str, str], Callable[[Muster, Tokens], str]] = {
    ("DELETE", "/api/users/me/sessions/{session_id}"): lambda _, other: claims_of(other.access)["sid"],
    **{
        (method, "/api/operations/{operation_id}"): lambda muster, other: str(_operation(muster, other))
        for method in ("GET", "PUT", "PATCH", "DELETE")
    },
    ("GET", "/api/jobs/{job_id}"): _job,
    ("DELETE", "/api/jobs/{job_id}"): _job,
    ("GET", "/api/jobs/{job_id}/result"): _job,
}
# These reach other people's things on purpose: that is what their scopes are for.
ADMINISTRATIVE = {"users:read", "users:write"}
# And these open what belongs to everybody who has them.
SHARED = {"heroes:read", "heroes:write", "tasks", "chat"}

SECURED = {route: scope for route, scope in ROUTES.items() if scope is not PUBLIC}


def call(
    muster: Muster, route: tuple[str, str], tokens: Tokens | None = None, part: str = "", body: Any = None
) -> httpx.Response:
    """Without a body nothing happens where one is needed; `part` fills what is in braces."""
    method, path = route
    part = part or str(uuid4())
    headers = tokens.bearer if tokens else {}
    url = re.sub(r"\{\w+\}", lambda _: part, path)
    with muster.client.stream(method, url, headers=headers, json=body, follow_redirects=True) as answer:
        if "event-stream" not in answer.headers.get("content-type", ""):  # it has no end
            answer.read()
    return answer


def shown(route: tuple[str, str]) -> str:
    return " ".join(route)


def assert_refused(answer: httpx.Response, status: int, kind: str) -> None:
    assert answer.status_code == status, answer.text
    if answer.request.url.path in OAUTH:  # RFC 6750 section 3.1 has no code for a caller who brings no token
        assert answer.json()["error"] == {"unauthenticated": "invalid_token"}.get(kind, kind.replace("-", "_"))
    else:
        assert answer.json()["type"] == f"/problems/{kind}"


def test_openapi_says_the_same_as_the_table(muster: Muster) -> None:
    described: dict[tuple[str, str], str | None] = {}
    for path, operations in muster.client.get("/api/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            needed = [scope for one in operation.get("security", []) for scopes in one.values() for scope in scopes]
            assert len(needed) <= 1
            described[method.upper(), path] = needed[0] if needed else PUBLIC
            refuses = {"401", "403"}.issubset(operation["responses"])
            assert refuses == bool(needed) or path == "/metrics", "its token is no account's"
            assert bool(needed) == bool(operation.get("security")), "signed in, but without a scope"
    assert described == ROUTES


def test_each_scope_of_the_table_exists() -> None:
    assert set(SECURED.values()) <= SCOPES.keys()


@pytest.mark.parametrize("route", SECURED, ids=shown)
def test_nobody_calls_a_secured_route_without_a_token(muster: Muster, route: tuple[str, str]) -> None:
    answer = call(muster, route)
    assert_refused(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="muster"'


@pytest.mark.parametrize("route", SECURED, ids=shown)
def test_nobody_calls_a_secured_route_with_a_made_up_token(muster: Muster, route: tuple[str, str]) -> None:
    answer = call(muster, route, Tokens(access_token="made.up.token"))
    assert_refused(answer, 401, "invalid-token")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("route", [*(route for route in ROUTES if route not in SECURED), *[("GET", p) for p in PAGES]])
def test_anybody_calls_a_public_route(muster: Muster, route: tuple[str, str]) -> None:
    """A body is missing where one is needed, or what says that a page is ours; no answer asks for a token."""
    answer = call(muster, route)
    assert answer.status_code in ({200} if route[0] == "GET" else {403} if "/cookie/" in route[1] else {400, 422})
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("scope", SCOPES)
def test_a_token_of_one_scope_opens_what_needs_that_scope_and_nothing_else(muster: Muster, scope: str) -> None:
    tokens = muster.admin().sign_in(scope=scope)
    assert tokens["scope"] == scope
    for route, needed in SECURED.items():
        answer = call(muster, route, tokens)
        if scope == needed:
            assert answer.status_code in {200, 204, 400, 404, 422}, (shown(route), answer.text)
        else:
            assert_refused(answer, 403, "insufficient-scope")
            challenge = f'Bearer realm="muster", error="insufficient_scope", scope="{needed}"'
            assert answer.headers["www-authenticate"] == challenge


@pytest.mark.parametrize("route", FOREIGN, ids=shown)
def test_another_persons_thing_is_a_404_like_none_at_all_and_stays_as_it_is(
    muster: Muster, route: tuple[str, str]
) -> None:
    me = muster.new_account() if "job" in route[1] else muster.admin()  # who reads users sees all jobs
    mine, theirs = me.sign_in(), muster.new_account().tokens()
    thing = FOREIGN[route](muster, theirs)
    before = _things(muster, theirs)
    none = str(uuid4()) if "session" in route[1] or "job" in route[1] else str(2**63 - 1)
    foreign, unknown = (call(muster, route, mine, part, BODIES.get(route)) for part in (thing, none))
    assert (foreign.status_code, foreign.json()) == (404, unknown.json())
    assert _things(muster, theirs) == before


def _things(muster: Muster, tokens: Tokens) -> list[Any]:
    paths = ("/api/users/me/sessions", "/api/operations")
    return [muster.client.get(path, headers=tokens.bearer).json() for path in paths]


def test_each_route_that_names_a_thing_of_ones_own_is_tried_with_somebody_elses() -> None:
    named = {route for route, scope in SECURED.items() if "{" in route[1] and scope not in ADMINISTRATIVE | SHARED}
    assert named == FOREIGN.keys()


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_a_method_that_a_route_does_not_take_is_a_405_that_names_those_it_takes(muster: Muster, path: str) -> None:
    taken = {method for method, known in ROUTES if known == path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - taken:
        answer = call(muster, (method, path))
        assert answer.status_code == 405, method
        assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == taken

"""Every route: who may call it. Derived from OpenAPI, then called by people who may and by people who may not.

A route is public, or it needs the scope that is named after its resource. Nothing has to be added here for a new
resource that follows this; a failing test says what to write if one does not.
"""

import re
from collections.abc import Callable
from inspect import ismodule
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import pytest

from app import main
from app.core.scopes import SCOPES
from tests.support.assertions import assert_oauth_error, assert_problem
from tests.support.hostile import OAUTH, bodies
from tests.support.servers import Muster, Tokens, claims_of

pytestmark = pytest.mark.one_database

Route: TypeAlias = tuple[str, str]

PUBLIC = [
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("POST", "/api/auth/register"),
    ("POST", "/api/auth/token"),
    ("POST", "/api/auth/revoke"),
    ("POST", "/api/auth/cookie/login"),
    ("POST", "/api/auth/cookie/logout"),
    ("POST", "/api/auth/forgot-password"),
    ("POST", "/api/auth/request-verification"),
    ("POST", "/api/auth/reset-password"),
    ("POST", "/api/auth/verify-email"),
    ("POST", "/api/auth/renew-link"),
    ("POST", "/api/auth/check-password"),
]
# For people and browsers, so not in OpenAPI.
PAGES = ["/", "/api/docs", "/api/openapi.json", "/static/docs.html"]

# The name of the scopes, for addresses whose scopes are not named after their resource.
SCOPES_OF = {
    "users/me": "me",
    "auth/introspect": "tokens:introspect",
    "roles": "users",
    "clients": "users",
    "audit": "users",
    "system": "users",
    "teams": "heroes",
}
# These reach other people's things on purpose: that is what their scopes are for.
ADMINISTRATIVE = {"users:read", "users:write"}
# And these open what belongs to everybody who has the scope.
SHARED = {"heroes:read", "heroes:write", "tasks", "chat"}


def _session(_: Muster, tokens: Tokens) -> str:
    return str(claims_of(tokens.access)["sid"])


def _job(muster: Muster, tokens: Tokens) -> str:
    return str(muster.client.post("/api/jobs/statement", json={}, headers=tokens.bearer).json()["id"])


# How to create a resource of one's own where a POST to its collection does not; returns its name in an address.
MADE: dict[str, Callable[[Muster, Tokens], str]] = {"/api/users/me/sessions": _session, "/api/jobs": _job}


@pytest.fixture(scope="module")
def secured(muster: Muster) -> dict[Route, str]:
    """The routes that are not public, each with the scope that OpenAPI says it needs."""
    described: dict[Route, str] = {}
    for path, operations in muster.client.get("/api/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            needed = [scope for one in operation.get("security", []) for scopes in one.values() for scope in scopes]
            route = method.upper(), path
            assert len(needed) == (route not in PUBLIC), (
                f"{shown(route)} needs {needed}: give it one scope, dependencies=[requires(…)], or add it to PUBLIC"
            )
            refuses = {"401", "403"}.issubset(operation["responses"])
            assert refuses == bool(needed) or path == "/metrics", "its token belongs to no account"
            assert bool(needed) == bool(operation.get("security")), "signed in, but without a scope"
            described |= {route: needed[0]} if needed else {}
    return described


def call(
    muster: Muster, route: Route, tokens: Tokens | None = None, part: str = "", body: Any = None
) -> httpx.Response:
    """Call a route; without a body nothing happens where one is needed. `part` replaces the parameters of the path."""
    method, path = route
    part = part or str(uuid4())
    headers = tokens.bearer if tokens else {}
    url = re.sub(r"\{\w+\}", lambda _: part, path)
    with muster.client.stream(method, url, headers=headers, json=body, follow_redirects=True) as answer:
        if "event-stream" not in answer.headers.get("content-type", ""):  # it has no end
            answer.read()
    return answer


def shown(route: Route) -> str:
    return " ".join(route)


def assert_no_access(answer: httpx.Response, status: int, kind: str) -> None:
    if answer.request.url.path in OAUTH:  # RFC 6750 section 3.1 has no code for a caller who brings no token
        assert_oauth_error(answer, status, {"unauthenticated": "invalid_token"}.get(kind, kind.replace("-", "_")))
    else:
        assert_problem(answer, status, kind)


def test_main_leaves_every_plural_to_the_routers() -> None:
    """A resource of tags or servers is imported by that name."""
    taken = [name for name, value in vars(main).items() if re.fullmatch("[a-z]+s", name) and not ismodule(value)]
    assert taken == []


def test_a_route_needs_a_scope_that_exists_and_is_named_after_its_resource(secured: dict[Route, str]) -> None:
    for (method, path), scope in secured.items():
        resource = path.removeprefix("/api/")
        name = next((name for start, name in SCOPES_OF.items() if resource.startswith(start)), resource.split("/")[0])
        allowed = {name, f"{name}:read" if method == "GET" else f"{name}:write"}
        assert scope in allowed, (
            f"{method} {path} needs {scope} instead of {allowed}: if that is right, add its resource to SCOPES_OF"
        )
        assert scope in SCOPES, f'{method} {path}: add "{scope}" with a text to SCOPES in app/core/scopes.py'


def test_nobody_calls_a_secured_route_without_a_token(muster: Muster, secured: dict[Route, str]) -> None:
    for route in secured:
        answer = call(muster, route)
        assert_no_access(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer realm="muster"'


@pytest.mark.slow
def test_nobody_calls_a_secured_route_with_a_made_up_token(muster: Muster, secured: dict[Route, str]) -> None:
    for route in secured:
        answer = call(muster, route, Tokens(access_token="made.up.token"))
        assert_no_access(answer, 401, "invalid-token")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("route", [*PUBLIC, *[("GET", page) for page in PAGES]], ids=" ".join)
def test_a_public_route_needs_no_token(muster: Muster, route: Route) -> None:
    """The route may refuse a missing body, or a request from no page of ours; no response asks for a token."""
    answer = call(muster, route)
    assert answer.status_code in ({200} if route[0] == "GET" else {403} if "/cookie/" in route[1] else {400, 422})
    assert "www-authenticate" not in answer.headers


EXPORT: Route = ("POST", "/api/jobs/export")  # it holds what every scope allows to read, so it needs all of them


@pytest.mark.slow
@pytest.mark.parametrize("scope", SCOPES)
def test_a_token_with_one_scope_opens_the_routes_that_need_it_and_no_others(
    muster: Muster, secured: dict[Route, str], scope: str
) -> None:
    tokens = muster.admin().sign_in(scope=scope)
    assert tokens["scope"] == scope
    for route, needed in secured.items():
        answer = call(muster, route, tokens)
        if scope == needed and route == EXPORT:
            assert_no_access(answer, 403, "insufficient-scope")
        elif scope == needed:
            assert answer.status_code in {200, 202, 204, 400, 404, 422}, (shown(route), answer.text)
        else:
            assert_no_access(answer, 403, "insufficient-scope")
            assert answer.json()["scope"] == needed
            challenge = f'Bearer realm="muster", error="insufficient_scope", scope="{needed}"'
            assert answer.headers["www-authenticate"] == challenge


@pytest.mark.slow
def test_another_persons_resource_is_a_404_like_an_unknown_one_and_stays_unchanged(
    muster: Muster, secured: dict[Route, str]
) -> None:
    examples, tried = bodies(muster), 0
    for route, scope in secured.items():
        if "{" not in route[1] or scope in ADMINISTRATIVE | SHARED:
            continue
        me = muster.new_account() if "job" in route[1] else muster.admin()  # a caller who reads users sees all jobs
        mine, theirs = me.tokens(), muster.new_account().tokens()
        collection = route[1].partition("/{")[0]
        thing = MADE.get(collection, _made(collection, examples))(muster, theirs)
        before = _things(muster, theirs, collection)
        none = str(2**63 - 1) if thing.isdecimal() else str(uuid4())
        foreign, unknown = (call(muster, route, mine, part, examples.get(route)) for part in (thing, none))
        assert (foreign.status_code, foreign.json()) == (404, unknown.json()), (
            f"{shown(route)}: somebody else's is a {foreign.status_code}, and one that does not exist {unknown.text}."
            f" Select it by its owner too; or add {scope} to SHARED, if everybody who has it may"
        )
        assert _things(muster, theirs, collection) == before, shown(route)
        tried += 1
    assert tried > 5


def _made(collection: str, examples: dict[Route, Any]) -> Callable[[Muster, Tokens], str]:
    def make(muster: Muster, tokens: Tokens) -> str:
        answer = call(muster, ("POST", collection), tokens, body=examples.get(("POST", collection)))
        assert answer.status_code == 201, f"add to MADE how somebody comes to have one of {collection}: {answer.text}"
        return str(answer.json()["id"])

    return make


def _things(muster: Muster, tokens: Tokens, collection: str) -> Any:
    rows = muster.client.get(collection, headers=tokens.bearer).json()
    return [row["id"] for row in rows] if collection == "/api/jobs" else rows  # a job makes progress meanwhile


@pytest.mark.slow
def test_a_method_that_a_route_does_not_support_is_a_405_that_names_those_it_supports(
    muster: Muster, secured: dict[Route, str]
) -> None:
    routes = [*PUBLIC, *secured]
    for path in sorted({path for _, path in routes}):
        taken = {method for method, known in routes if known == path}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "QUERY"} - taken:
            answer = call(muster, (method, path))
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == taken

"""Helpers for tests of hostile requests: raw bytes, every route that takes JSON, and assertions about rejections."""

import re
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse, RemoteDisconnected
from typing import Any
from uuid import uuid4

import httpx

from tests.support.ledgers import OPERATION
from tests.support.servers import PASSWORD, STARTUP, Muster, Tokens, claims_of

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PAGE = "/a/page"  # the path that `raw` notes for an address outside of the API
SECRET = "harbor-tandem-violet-7391"  # used wherever a password is refused: nothing may repeat it
OAUTH = ("/api/auth/token", "/api/auth/revoke", "/api/auth/introspect")
OF_THE_API = re.compile(rb"[A-Z]+ /(api|\.well-known|health)(?![^/? %])")

# A body that a route accepts, where one made of the examples in OpenAPI will not do. "" becomes a new e-mail address.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/auth/register"): {"email": "", "name": "Ada", "password": SECRET},
    ("POST", "/api/auth/forgot-password"): {"email": ""},
    ("POST", "/api/auth/request-verification"): {"email": ""},
    ("POST", "/api/auth/reset-password"): {"token": "A" * 72, "new_password": SECRET},
    ("POST", "/api/auth/verify-email"): {"token": "A" * 72},
    ("POST", "/api/auth/renew-link"): {"token": "A" * 72},
    ("POST", "/api/auth/check-password"): {"password": SECRET, "related": ["Ada"]},
    ("PATCH", "/api/users/me"): {"name": "Ada"},
    ("DELETE", "/api/users/me"): {"current_password": PASSWORD},
    ("PATCH", "/api/users/me/sessions/{session_id}"): {"device": "Ada's phone"},
    ("PUT", "/api/users/me/password"): {"current_password": PASSWORD, "new_password": SECRET},
    ("PUT", "/api/users/me/email"): {"email": "", "current_password": PASSWORD},
    ("PATCH", "/api/users/{user_id}"): {"name": "Ada", "role": "user", "is_active": True},
    ("PATCH", "/api/roles/{name}"): {"scopes": ["me"]},
    ("POST", "/api/operations"): OPERATION,
    ("PUT", "/api/operations/{operation_id}"): OPERATION,
    ("PATCH", "/api/operations/{operation_id}"): OPERATION,
    ("POST", "/api/heroes"): {"name": "", "secret_name": "Dive Wilson", "age": 48},
    ("PATCH", "/api/heroes/{hero_id}"): {"name": "", "secret_name": "Dive Wilson", "age": 48},
    ("PATCH", "/api/tasks/{task_id}"): {"title": "Water the plants", "closed": True},
    ("POST", "/api/teams"): {"name": "", "headquarters": "Sharp Tower"},
    ("PATCH", "/api/teams/{team_id}"): {"name": "", "headquarters": "Sharp Tower"},
    ("POST", "/api/chat/messages"): {"text": "Hello", "room": "lobby", "client_message_id": "7f3a"},
    ("POST", "/api/jobs/statement"): {"from": "2023-10-01", "to": "2023-11-01", "mail": False},
}


@dataclass(frozen=True)
class Target:
    """A route that takes JSON, ready to be called by somebody who may."""

    method: str
    path: str
    body: dict[str, Any]
    tokens: Tokens

    def send(self, muster: Muster, content: bytes, **headers: str) -> httpx.Response:
        sent = {"Content-Type": JSON, **self.tokens.bearer, **headers}
        in_bytes = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
        return muster.client.request(self.method, self.path, content=content, headers=in_bytes)


def bodies(muster: Muster) -> dict[tuple[str, str], dict[str, Any]]:
    """Every route that takes JSON, with a body that it accepts."""
    schema = muster.client.get("/api/openapi.json").json()
    found = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if content := operation.get("requestBody", {}).get("content", {}).get(JSON):
                body = BODIES.get((method.upper(), path)) or _example(schema, content["schema"])
                new = {field: f"{uuid4().hex}@example.com" if value == "" else value for field, value in body.items()}
                found[method.upper(), path] = new
    return found


def _example(schema: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """The body that the examples and defaults of the properties make."""
    while "$ref" in described:
        described = schema["components"]["schemas"][described["$ref"].rpartition("/")[2]]
    values = {name: _value(field) for name, field in described["properties"].items()}
    return {name: value[0] for name, value in values.items() if value}


def _value(field: dict[str, Any]) -> list[Any]:
    """The example or the default of a field in a list, which is empty if there is neither."""
    inner = field.get("anyOf", [field])[0]
    examples = field.get("examples") or inner.get("examples") or inner.get("enum") or []
    if not examples and inner.get("type") == "array":
        examples = [_value(inner["items"])]
    return [field["default"]] if "default" in field else list(examples[:1])


def targets(muster: Muster) -> list[Target]:
    """Every route that takes JSON, as an admin of its own, who does not mind what happens to the account."""
    admin = muster.admin().tokens()
    other = muster.me(muster.new_account().tokens()).json()["id"]
    operation = muster.client.post("/api/operations", json=OPERATION, headers=admin.bearer).json()["id"]
    session = claims_of(admin.access)["sid"]
    parts = {"user_id": other, "session_id": session, "name": "nobody", "operation_id": operation}
    return [
        Target(method, re.sub(r"\{(\w+)\}", lambda part: str(parts.get(part[1], 1)), path), body, admin)
        for (method, path), body in bodies(muster).items()
    ]


def assert_refused(answer: httpx.Response, *statuses: int) -> None:
    """A 4xx (or one of `statuses`) that explains itself, in the form of its endpoint, and repeats no secret."""
    assert answer.status_code in (statuses or range(400, 500)), answer.text[:500]
    assert SECRET not in answer.text
    assert PASSWORD not in answer.text
    if answer.request.url.path == PAGE:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<h1>" in answer.text
        return
    oauth = answer.request.url.path in OAUTH
    assert answer.headers["content-type"] == (JSON if oauth else "application/problem+json"), answer.text[:500]
    body = answer.json()
    if oauth:
        assert body["error"]
        assert body["error_description"] == body["detail"]
        assert answer.headers["cache-control"] == "no-store"
    else:
        assert body["status"] == answer.status_code
        assert body["title"]
        assert body["type"].startswith("/problems/")
    assert re.fullmatch(r"\w[^\x00-\x1f`^]{10,200}\.", body["detail"]), "a sentence, not a regular expression"


def raw(muster: Muster, request: bytes) -> httpx.Response:
    """The response to these very bytes, as they are, on a connection of their own."""
    with closing(socket.create_connection(("127.0.0.1", muster.port), timeout=STARTUP)) as connection:
        connection.sendall(request)
        answer = HTTPResponse(connection)
        try:
            answer.begin()
            content = answer.read()
        except (RemoteDisconnected, ConnectionResetError) as dropped:
            raise AssertionError(f"no answer to {request[:100]!r}") from dropped
    otherwise = "/" if OF_THE_API.match(request) else PAGE
    path = next((path for path in OAUTH if request.startswith(f"POST {path} ".encode())), otherwise)
    asked = httpx.Request("POST", muster.url + path)
    return httpx.Response(answer.status, headers=answer.getheaders(), content=content, request=asked)


def head(method: str, target: str, **headers: str) -> bytes:
    """A request line and headers, up to the body."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def each_string(body: dict[str, Any], change: Callable[[str], str]) -> list[dict[str, Any]]:
    """The body once for each string in it, with that one changed."""
    changed = [{**body, field: change(value)} for field, value in body.items() if isinstance(value, str)]
    lists = {field: value for field, value in body.items() if isinstance(value, list)}
    return changed + [{**body, field: [change(str(value[0]))]} for field, value in lists.items()]

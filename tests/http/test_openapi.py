"""The contract as it is published: every route with its responses and its scope, every kind of problem documented."""

import json
import pkgutil
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBasic

import app.routers
from app.core.errors import AppError
from app.dependencies import requires
from app.http.openapi_document import install_openapi
from tests.support.databases import ROOT, SECRET_KEY
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database

UNDOCUMENTED = {
    "GET /.well-known/jwks.json",
    "GET /.well-known/oauth-authorization-server",
    "GET /.well-known/openid-configuration",
    "GET /api/auth/authorization",
    "POST /api/auth/authorization",
    "GET /api/auth/oidc/login",
    "GET /api/auth/oidc/callback",
    "WS /api/chat/ws",
}
OAUTH = {"/api/auth/token", "/api/auth/revoke", "/api/auth/introspect"}
# What no route answers; or only where there is an identity provider, tests/oidc/test_people.py.
UNROUTED = {"unknown-client", "not-found", "method-not-allowed", "email-missing", "provider-unavailable"}


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    description: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def scopes(self) -> list[str]:
        return [scope for need in self.description.get("security", []) for names in need.values() for scope in names]

    @property
    def errors(self) -> dict[int, dict[str, Any]]:
        return {int(code): answer for code, answer in self.description["responses"].items() if int(code) >= 400}

    def problem_types(self, status: int) -> set[str]:
        content = self.description["responses"][str(status)].get("content", {})
        return set(content.get("application/problem+json", {}).get("examples", {}))


@pytest.fixture(scope="module", autouse=True)
def routers() -> list[ModuleType]:
    """Every module of app/routers, imported, which makes its errors known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_KEYS", SECRET_KEY)  # the routers read the settings when they are imported
        return [import_module(f"app.routers.{found.name}") for found in pkgutil.iter_modules(app.routers.__path__)]


@pytest.fixture(scope="module")
def schema(muster: Muster) -> dict[str, Any]:
    answer = muster.client.get("/api/openapi.json")
    assert answer.status_code == 200
    schema: dict[str, Any] = answer.json()
    return schema


@pytest.fixture(scope="module")
def operations(schema: dict[str, Any]) -> list[Operation]:
    return [
        Operation(method, path, description)
        for path, methods in schema["paths"].items()
        for method, description in methods.items()
    ]


# ---- The route table ----


def test_the_routes_that_are_not_in_the_document_are_these(routers: list[ModuleType]) -> None:
    """Who may call the others is in test_route_table.py."""
    assert set(undocumented_routes(routers)) == UNDOCUMENTED


def undocumented_routes(routers: list[ModuleType]) -> Iterator[str]:
    """The resources' routes that OpenAPI does not show, sockets included; test_route_table.py has the other pages."""
    for module in routers:
        for router in vars(module).values():
            for route in router.routes if isinstance(router, APIRouter) else ():
                if not getattr(route, "include_in_schema", False):
                    for method in getattr(route, "methods", None) or {"WS"}:
                        yield f"{method} {getattr(route, 'path', '')}"


# ---- The description of each route ----


def test_operation_ids_are_unique_short_and_in_camel_case(operations: list[Operation]) -> None:
    names = Counter(each.description["operationId"] for each in operations)
    assert [name for name, count in names.items() if count > 1] == []
    assert [name for name in names if not re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", name) or len(name) > 24] == []


def test_every_route_has_a_description_that_names_its_scope_and_a_documented_tag(
    schema: dict[str, Any], operations: list[Operation]
) -> None:
    tags = {tag["name"] for tag in schema["tags"] if tag["description"]}
    for each in operations:
        own_words, _, scope = each.description["description"].partition("\n\nScope: ")
        assert len(own_words) > 8, f"{each.name}: its function needs a docstring that says what it does"
        assert re.findall(r"`([^`]+)`", scope) == each.scopes, each.name
        assert set(each.description["tags"]) <= tags, f"{each.name}: describe its tag in app/http/openapi.toml"


def test_a_summary_says_what_the_route_does_and_a_collection_comes_before_its_other_routes(
    schema: dict[str, Any],
) -> None:
    paths = list(schema["paths"])
    assert schema["paths"]["/api/operations"]["get"]["summary"] == "Your operations, newest first"
    assert paths.index("/api/operations") < paths.index("/api/operations/export")


def test_every_parameter_field_header_and_error_has_an_example(
    schema: dict[str, Any], operations: list[Operation]
) -> None:
    for each in operations:
        for parameter in each.description.get("parameters", []):
            words, _, example = parameter["description"].rpartition("Example: ")
            assert len(words) > 10, (each.name, parameter["name"])
            assert example.strip("`"), (each.name, parameter["name"])
        for status, answer in each.description["responses"].items():
            assert all("example" in header for header in answer.get("headers", {}).values()), (each.name, status)
            if status >= "400":
                assert all(content["examples"] for content in answer["content"].values()), (each.name, status)
    for name, described in schema["components"]["schemas"].items():
        if name not in {"Problem", "FieldError", "OAuthError"}:  # shown whole, with each error
            assert [field for field, one in described.get("properties", {}).items() if not has_example(one)] == [], name


def has_example(field: dict[str, Any]) -> bool:
    """Whether Swagger UI shows an example: the field's own, its default, or one made from the format."""
    inner = field.get("anyOf", [field])[0]
    shown = {"examples", "enum", "const", "default", "$ref"} & (inner.keys() | field.keys())
    by_type = inner.get("type") == "boolean" or inner.get("format") in {"uuid", "date-time", "password"}
    return bool(shown) or by_type or "$ref" in str(inner)


def test_a_parameter_and_a_route_without_a_description_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEYS", SECRET_KEY)
    bare = FastAPI()

    @bare.get("/things/{thing_id}")
    def read_thing(thing_id: UUID, number: int, since: datetime, name: str, later: bool | None = None) -> None:
        pass

    @bare.get("/things", dependencies=[Depends(HTTPBasic())])
    def list_things(limit: int) -> None:
        pass

    install_openapi(bare)
    operation = bare.openapi()["paths"]["/things/{thing_id}"]["get"]
    assert (operation["summary"], operation["description"]) == ("Read Thing", "Read Thing")
    assert {parameter["name"]: parameter["description"] for parameter in operation["parameters"]} == {
        "thing_id": "Example: `01935b0e-7c1a-7000-8000-0123456789ab`",
        "number": "Example: `1`",
        "since": "Example: `2026-11-24T12:00:00Z`",
        "name": "Example: `name`",
        "later": "Example: `true`",
    }


def test_the_version_is_that_of_the_project(schema: dict[str, Any]) -> None:
    assert schema["info"]["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_a_route_cannot_require_a_scope_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no scope tsaks"):
        requires("tsaks")


def test_every_response_with_a_body_has_a_schema(operations: list[Operation]) -> None:
    for each in operations:
        successes = [answer for code, answer in each.description["responses"].items() if code in {"200", "201"}]
        for answer in successes:
            assert all(content["schema"] for content in answer.get("content", {}).values()), each.name
        assert successes or {"202", "204"} & each.description["responses"].keys(), each.name


def test_every_error_is_a_problem_or_at_the_oauth_endpoints_an_oauth_error(operations: list[Operation]) -> None:
    wrong = {
        f"{each.name} {status}": answer.get("content")
        for each in operations
        for status, answer in each.errors.items()
        if schemas(answer) != [OAUTH_ERROR if each.path in OAUTH else PROBLEM]
    }
    assert wrong == {}


PROBLEM = ("application/problem+json", "#/components/schemas/Problem")
OAUTH_ERROR = ("application/json", "#/components/schemas/OAuthError")


def schemas(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(media, content["schema"].get("$ref")) for media, content in answer.get("content", {}).items()]


def test_every_route_documents_the_errors_that_any_route_may_answer(operations: list[Operation]) -> None:
    wrong = {
        f"{each.name} {status}": missing
        for each in operations
        if each.path not in OAUTH
        for status, types in (GENERAL | (SECURED if each.scopes else {})).items()
        if (missing := types - each.problem_types(status))
    }
    assert wrong == {}
    assert all({400, 401, 413, 429, 500, 503} <= each.errors.keys() for each in operations if each.path in OAUTH)
    for status in (429, 503):
        assert [each.name for each in operations if "Retry-After" not in each.errors[status].get("headers", ())] == []


def test_swagger_ui_can_leave_out_the_errors_that_all_routes_share(operations: list[Operation]) -> None:
    """They are marked, at the OAuth endpoints too, which opened to 4,500 pixels with them."""
    for each in operations:
        for status in (408, 413, 415, 429, 431, 500):
            (content,) = each.errors[status]["content"].values()
            kinds = [kind for kind, example in content["examples"].items() if "x-general" in example]
            assert kinds, f"{each.name} {status}"


GENERAL = {
    400: {"bad-request"},
    413: {"content-too-large"},
    422: {"invalid"},
    429: {"too-many-requests"},
    500: {"internal"},
    503: {"unavailable"},
}
SECURED = {401: {"unauthenticated", "invalid-token"}, 403: {"insufficient-scope"}}


def test_every_schema_is_used(schema: dict[str, Any]) -> None:
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(schema)))
    assert schema["components"]["schemas"].keys() == used


# ---- Problem types ----


def kinds(of: type[AppError] = AppError) -> Iterator[type[AppError]]:
    for kind in of.__subclasses__():
        if kind.__module__.startswith(("app.core.errors", "app.routers.")):
            yield kind
            yield from kinds(kind)


def test_the_documentation_lists_every_problem_type_with_its_status() -> None:
    rows = re.findall(r"^\| `/problems/([a-z-]+)` \| (\d+) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    known = {(kind.type, str(kind.status)): kind.__module__ for kind in kinds()}
    assert {row for row, module in known.items() if module == "app.core.errors"} <= set(rows) <= known.keys()
    assert len(rows) == len(set(rows))


def test_a_generated_client_can_read_every_member_that_the_documentation_names(schema: dict[str, Any]) -> None:
    members = {"errors", "field", "scope", "renewable", "platform", "minimum_version", "ticket"}
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "errors.md").read_text()))
    assert members <= named & schema["components"]["schemas"]["Problem"]["properties"].keys()


def test_every_problem_type_belongs_to_one_kind_whose_detail_is_a_sentence() -> None:
    names = Counter(kind.type for kind in kinds())
    assert [name for name, count in names.items() if count > 1] == []
    assert [kind for kind in kinds() if not re.fullmatch(r"[A-Z].*\.", kind.detail)] == []


def test_openapi_documents_every_problem_type_that_a_route_may_answer(operations: list[Operation]) -> None:
    documented = {name for each in operations for status in each.errors for name in each.problem_types(status)}
    assert documented == {kind.type for kind in kinds()} - UNROUTED

"""The traps that generators of clients fall into: each is a kind, looked for in the whole OpenAPI document."""

import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any, get_args
from urllib.parse import urlencode
from uuid import UUID

import pytest
from jsonschema_rs import Validator, validator_for
from pydantic import TypeAdapter
from sqlmodel import SQLModel

import app.models
from app.models.base import MAX_ID
from app.models.operation import Change, OperationPublic
from app.models.types import format_time
from tests.support.ledgers import Ledger
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database

Schema = dict[str, Any]

IN_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


@pytest.fixture(scope="module")
def document(muster: Muster) -> Schema:
    document: Schema = muster.client.get("/api/openapi.json").json()
    return document


def schemas(node: Any, place: str = "") -> Iterator[tuple[str, Schema]]:
    """Every object of the document but examples, with its place: schemas among others."""
    if isinstance(node, dict):
        yield place, node
        for name, inner in node.items():
            if name not in {"example", "examples"}:
                yield from schemas(inner, f"{place}/{name}")
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from schemas(inner, f"{place}/{number}")


def fields(document: Schema) -> Iterator[tuple[str, Schema]]:
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            yield f"{name}.{field}", described


def types_of(schema: Schema) -> list[Any]:
    kind = schema.get("type", [])
    return kind if isinstance(kind, list) else [kind]


# Each takes the place and the schema, and says whether it is a trap.
TRAPS: dict[str, Callable[[str, Schema], bool]] = {
    "a union, which most languages have no type for": lambda _, schema: bool({"anyOf", "oneOf"} & schema.keys()),
    "null in a query, a header or a path": lambda place, schema: "/parameters/" in place and "null" in types_of(schema),
    "an integer of unknown size": lambda _, schema: (
        "integer" in types_of(schema) and schema.get("format") not in {"int32", "int64"}
    ),
    "a bound beyond 64 bits": lambda _, schema: (
        "integer" in types_of(schema) and abs(schema.get("maximum", 0)) >= 2**63
    ),
    "control characters in a pattern": lambda _, schema: bool(re.search(r"\\x|\\u", str(schema.get("pattern", "")))),
    "an object without a name": lambda place, schema: (
        bool(schema.get("properties")) and not re.fullmatch("/components/schemas/[A-Za-z]+", place)
    ),
    "a schema that says nothing": lambda place, schema: place.endswith(("/schema", "/items")) and not schema,
}


@pytest.mark.parametrize("trap", TRAPS)
def test_the_description_has_no(document: Schema, trap: str) -> None:
    assert [place for place, schema in schemas(document) if TRAPS[trap](place, schema)] == []


def test_each_field_is_described(document: Schema) -> None:
    assert [name for name, field in fields(document) if len(field.get("description", "")) < 5] == []


@pytest.mark.slow
def test_each_example_is_valid(document: Schema) -> None:
    @cache  # two thousand examples have two hundred schemas
    def validator(schema: str) -> Validator:
        whole = json.loads(schema) | {"components": document["components"]}
        return validator_for(whole, validate_formats=True, ignore_unknown_formats=True)

    wrong = {
        f"{place}: {error.message}"
        for place, schema, value in examples(document)
        for error in validator(json.dumps(schema)).iter_errors(value)
    }
    assert wrong == set()


def examples(document: Schema) -> Iterator[tuple[str, Schema, Any]]:
    """Each example with its schema: of a schema itself, of a header, and of a body."""
    for place, node in schemas(document):
        described = node.get("schema", {})
        match node.get("examples"):
            case list(values):
                yield from ((place, node, value) for value in values)
            case dict(named):
                yield from ((place, described, example["value"]) for example in named.values())
        if "example" in node:
            yield place, described, node["example"]


# Their tokens come by mail; and Swagger UI shows no file where there is text.
NOT_TRIED = {"/api/auth/reset-password", "/api/auth/renew-link", "/api/auth/verify-email", "application/octet-stream"}


@pytest.mark.slow
def test_a_body_that_swagger_ui_suggests_works_as_it_stands(muster: Muster, document: Schema) -> None:
    """Except where something exists already, or nothing has the id in the path."""
    refused = {}
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            ids = [each for each in described.get("parameters", []) if each["in"] == "path"]
            unknown = {each["name"]: MAX_ID if each["schema"]["type"] == "integer" else UUID(int=7) for each in ids}
            for media_type, content in described.get("requestBody", {}).get("content", {}).items():
                if NOT_TRIED & {path, media_type}:
                    continue
                body, headers = suggested(content, document), muster.admin().tokens().bearer
                headers |= {"Content-Type": media_type, "Origin": muster.url}
                sent = json.dumps(body) if "json" in media_type else urlencode(body) if "form" in media_type else body
                answer = muster.client.request(method, path.format_map(unknown), headers=headers, content=sent)
                if not (answer.is_success or answer.status_code == (404 if unknown else 409)):
                    refused[f"{method} {path}"] = answer.text
    muster.client.delete("/api/clients/ledger-app", headers=muster.admin().tokens().bearer).raise_for_status()
    assert list(refused.items()) == []


def suggested(schema: Schema, document: Schema) -> Any:
    """The example that Swagger UI makes of a schema, or of the content of a body."""
    match schema:
        case {"example": example} | {"examples": [example, *_]} | {"default": example} | {"enum": [example, *_]}:
            return example
        case {"schema": inner}:
            return suggested(inner, document)
        case {"$ref": reference}:
            return suggested(document["components"]["schemas"][reference.rpartition("/")[2]], document)
        case {"properties": fields}:
            return {name: suggested(field, document) for name, field in fields.items()}
        case {"type": "boolean"}:
            return True
    return str(UUID(int=7)) if schema.get("format") == "uuid" else "string"


def test_a_schema_has_one_name_and_a_name_one_schema(document: Schema) -> None:
    """Generators name a body without a schema of its own after its operation."""
    names = [name.lower() for name in document["components"]["schemas"]]
    operations = [each["operationId"].lower() for path in document["paths"].values() for each in path.values()]
    made_up = {f"{each}{suffix}" for each in operations for suffix in ("body", "request", "response", "params")}
    assert len(names) == len(set(names))
    assert made_up & set(names) == set()


def test_no_schema_shadows_a_name_that_generated_code_needs(document: Schema) -> None:
    """Kotlin's asks `System` for its address: with a model of that name it does not compile."""
    needed = {"Call", "Data", "Date", "Error", "Exception", "File", "Function", "Future", "HttpUrl", "List", "Map"}
    needed |= {"Object", "Request", "Response", "Result", "Set", "String", "System", "Task", "Type", "UUID", "URL"}
    assert needed & document["components"]["schemas"].keys() == set()


def test_an_optional_field_of_a_request_is_nullable_only_in_a_patch_where_null_clears_it(document: Schema) -> None:
    bodies = {name for name, one in document["components"]["schemas"].items() if "additionalProperties" in one}
    nullable = {name for name, field in fields(document) if "null" in types_of(field)}
    nullable_in_bodies = {name for name in nullable if name.partition(".")[0] in bodies}
    assert "OperationUpdate.instrument_type" in nullable_in_bodies
    assert [name for name in nullable_in_bodies if not name.partition(".")[0].endswith("Update")] == []


def test_a_field_that_is_always_present_is_required(document: Schema) -> None:
    """A field of a response may be absent only if its description says when."""
    requests = {name for name, one in document["components"]["schemas"].items() if "additionalProperties" in one}
    requests |= {"TokenForm", "CookieForm", "RevocationForm"}
    absent = {
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        if name not in requests
        for field in schema["properties"].keys() - set(schema.get("required", ()))
    }
    by_kind = {name for name, _ in fields(document) if name.startswith(("Introspection.", "Problem."))}
    change = {f"Change.{name}" for name in Change.model_fields.keys() - {"id", "revision"}}
    assert absent >= change
    assert {name for name in absent - by_kind - change if name.rpartition(".")[2] not in SOMETIMES} == set()


# By scope and by setting.
SOMETIMES = {"secret_name", "authorization_endpoint"}


def test_a_change_has_the_fields_of_an_operation() -> None:
    assert Change.model_fields.keys() == OperationPublic.model_fields.keys() | {"deleted_at"}


def test_headers_name_addresses_of_their_own_route(document: Schema) -> None:
    for path, methods in document["paths"].items():
        for method in methods.values():
            for status, response in method["responses"].items():
                link = response.get("headers", {}).get("Link", {}).get("example", "")
                expected = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))
                assert not link or re.match(f"<{expected}\\?", link), (path, status, link)
    created = document["paths"]["/api/operations"]["post"]["responses"]["201"]["headers"]["Location"]
    assert created["example"] == "/api/operations/7"


def test_the_document_names_its_servers(document: Schema, muster: Muster) -> None:
    assert [server["url"] for server in document["servers"]] == ["/", f"http://localhost:{muster.port}"]


# ---- Times ----


def models() -> Iterator[type[SQLModel]]:
    for found in pkgutil.iter_modules(app.models.__path__):
        module = import_module(f"app.models.{found.name}")
        for _, model in inspect.getmembers(module, inspect.isclass):
            if issubclass(model, SQLModel) and model.__module__ == module.__name__:
                yield model


def test_every_time_that_a_model_shows_has_six_decimals() -> None:
    shown = [model for model in models() if model.__name__.endswith(("Public", "Change", "OfTeam", "OfHero"))]
    times = {
        f"{model.__name__}.{name}": TypeAdapter(field.rebuild_annotation()).dump_json(datetime(2026, 1, 1, tzinfo=UTC))
        for model in shown
        for name, field in model.model_fields.items()
        if datetime in (field.annotation, *get_args(field.annotation)) or "datetime.datetime" in str(field.annotation)
    }
    assert len(times) > 15
    assert {name: text for name, text in times.items() if text != b'"2026-01-01T00:00:00.000000Z"'} == {}


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_time_are_formatted_as_they_were_read(text: str) -> None:
    assert format_time(datetime.fromisoformat(text)) == text


def test_every_time_in_a_response_has_the_same_form(muster: Muster, document: Schema) -> None:
    """Whole seconds, other offsets and deletions included, in JSON and CSV."""
    ledger = Ledger(muster)
    bearer = ledger.tokens.bearer
    ledger.add(date="2026-01-01T00:00:00+02:00")
    ledger.delete(ledger.add(date="2026-01-01T00:00:00.5Z")["id"])
    muster.client.post("/api/jobs/statement", json={}, headers=bearer).raise_for_status()
    paths = [path for path, methods in document["paths"].items() if "get" in methods and "{" not in path]
    shown = set()
    for path in paths:
        if path.startswith("/api/") and not path.endswith("/events"):
            answer = muster.client.get(path, headers=bearer)
            times = re.findall(r"\d{4}-\d\d-\d\d[T ][^\",\r]*", answer.text)
            assert [time for time in times if not IN_UTC.fullmatch(time)] == [], path
            shown |= {path} if times else set()
    operations = {f"/api/operations{end}" for end in ("", "/changes", "/export")}
    assert shown >= operations | {"/api/users/me", "/api/users/me/sessions", "/api/jobs"}

"""Completes the OpenAPI document with each route's errors and scope, and an example for every parameter."""

import json
import tomllib
from pathlib import Path
from typing import Any, TypeAlias

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import MISSING, BaseModel
from pydantic.json_schema import models_json_schema
from sqlmodel import Field, SQLModel

from app.core import errors, oauth_errors
from app.core.errors import AppError
from app.core.oauth_errors import OAUTH_PATHS, oauth_error
from app.core.scopes import SCOPES
from app.core.settings import get_settings
from app.http.openapi_schemas import simplify, without_null

Responses: TypeAlias = dict[int | str, dict[str, Any]]
Kind: TypeAlias = type[AppError] | AppError

_texts: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def description() -> str:
    text: str = _texts["description"]
    return text.format(sign_in=_texts["sign-in"]["on" if get_settings().grant_types else "off"])


def servers() -> list[dict[str, str]]:
    """Where the API is: Swagger UI calls the first one, where the document came from."""
    public = get_settings().public_url
    return [{"url": "/", "description": "This address"}, {"url": public, "description": "The public address"}]


def tags() -> list[dict[str, str]]:
    return [{"name": name, "description": text} for name, text in _texts["tags"].items()]


def operation_id(route: APIRoute) -> str:
    """The name of a route in generated clients: its function's name in camel case."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


# ---- Responses that routes declare ----


class Mistake(SQLModel):
    """What is wrong with one field."""

    loc: list[str] = Field(description="Where: the part of the request, then the names or numbers that lead to it.")
    msg: str = Field(description="Why: a sentence for a person.")
    type: str = Field(description="The kind of mistake: programs decide by it.")


class Problem(SQLModel):
    """RFC 9457."""

    type: str = Field(
        description="Stable: programs decide by it.", schema_extra={"json_schema_extra": {"format": "uri-reference"}}
    )
    title: str = Field(description="What this type of problem is.")
    status: int = Field(ge=400, le=599, description="The status code of the response.")
    detail: str = Field(description="A sentence for a person.")
    errors: list[Mistake] | MISSING = Field(
        default=MISSING, description="With 422: where and why. Never repeats the input."
    )


class OAuthError(SQLModel):
    """RFC 6749 section 5.2."""

    error: str = Field(description="The code of RFC 6749: programs decide by it.")
    error_description: str = Field(description="A sentence for a developer.")
    detail: str = Field(description="The same sentence.")


# Schemas that the document refers to and FastAPI does not know of.
_SHARED: list[type[BaseModel]] = [Problem, OAuthError]
_HEADERS_OF_STATUS = {
    401: ["WWW-Authenticate"],
    403: ["WWW-Authenticate"],
    405: ["Allow"],
    429: ["Retry-After", "RateLimit-Policy", "RateLimit"],
    503: ["Retry-After"],
}


def headers(*names: str) -> dict[str, Any]:
    """The `headers` of a response."""
    return {name: _texts["headers"][name] for name in names}


def problems(*kinds: Kind, oauth: bool = False) -> Responses:
    """The `responses` of a route that can raise these errors, with an example of each; `oauth` selects RFC 6749's."""
    schema, media_type = (OAuthError, "application/json") if oauth else (Problem, "application/problem+json")
    members = oauth_error if oauth else errors.problem
    responses: Responses = {}
    for kind in kinds:
        content = {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}, "examples": {}}
        new = {"description": kind.title, "content": {media_type: content}}
        if kind.status in _HEADERS_OF_STATUS:
            new["headers"] = headers(*_HEADERS_OF_STATUS[kind.status])
        response = responses.setdefault(kind.status, new)
        example = {"summary": kind.title, "value": members(kind if isinstance(kind, AppError) else kind())}
        response["content"][media_type]["examples"][kind.type] = example
    return responses


def located(example: str, *others: str, status: int = 201) -> Responses:
    """The response of a route that creates what is at an address like `example`."""
    location = _texts["headers"]["Location"] | {"example": example}
    return {status: {"headers": headers(*others) | {"Location": location}}}


# The errors that every route may return, so that routes declare their own only.
_ANY: tuple[Kind, ...] = (
    *(errors.RequestTimeout, errors.ContentTooLarge, errors.UnsupportedMediaType, errors.TooManyRequests),
    *(errors.AppTooOld, errors.HeadTooLarge, errors.Internal, errors.Unavailable),
)
_GENERAL = (errors.BadRequest, errors.Invalid, *_ANY)
# RFC 6749 section 5.2. With 429 and 503 a client is still signed in.
OAUTH_ERRORS = problems(
    *(oauth_errors.InvalidRequest, oauth_errors.InvalidGrant, oauth_errors.InvalidScope),
    *(oauth_errors.UnsupportedGrantType, oauth_errors.InvalidClient, *_ANY),
    oauth=True,
)


def form_body(schema: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its form by hand."""
    _SHARED.append(schema)
    content = {"application/x-www-form-urlencoded": {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


# ---- The document ----

_BEARER = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def install_openapi(app: FastAPI) -> None:
    """Make `app.openapi()` return the complete document."""
    build = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(build())
        return build()

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's documented way


def _complete(schema: dict[str, Any]) -> None:
    settings, components = get_settings(), schema["components"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete_operation(path, method, operation)
    _describe_tags(schema)
    # A collection comes before its members, whichever route is tried first.
    schema["paths"] = dict(sorted(schema["paths"].items(), key=lambda item: item[0].count("/")))
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    paths = str(schema["paths"])
    used = [model for model in _SHARED if f"#/components/schemas/{model.__name__}'" in paths]
    _, shared = models_json_schema(
        [(model, "validation") for model in used], ref_template="#/components/schemas/{model}"
    )
    components["schemas"] |= shared["$defs"]
    simplify(schema["paths"])
    simplify(components["schemas"])
    if settings.docs_grant is None:
        words = f"Paste an access token of {settings.oidc_issuer}."
        components["securitySchemes"]["muster"] = _BEARER | {"description": words}


def _describe_tags(schema: dict[str, Any]) -> None:
    """Add the tags without a text in openapi.toml: a resource is described as the scope of the same name is."""
    described = schema.setdefault("tags", [])
    known = {tag["name"] for tag in described}
    used = {tag for methods in schema["paths"].values() for each in methods.values() for tag in each.get("tags", ())}
    described += [{"name": tag, "description": f"{SCOPES[tag]}."} for tag in sorted(used - known) if tag in SCOPES]


def _complete_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    scopes = [scope for requirement in operation.get("security", []) for scope in requirement["muster"]]
    words = operation.setdefault("description", operation["summary"])
    # Swagger UI shows the summary in its list: the docstring's first sentence, without Markdown.
    operation["summary"] = " ".join(words.split()).partition(". ")[0].removesuffix(".").replace("`", "")
    if scopes:
        needed = ", ".join(f"`{scope}` ({SCOPES[scope][0].lower()}{SCOPES[scope][1:]})" for scope in scopes)
        operation["description"] += f"\n\nScope: {needed}."
    for parameter in operation.get("parameters", []):
        _add_example(parameter)
    _add_headers(path, operation)
    _add_errors(path, method, operation, scopes)


# Examples by format or type, for parameters that have none of their own.
_EXAMPLES = {
    "integer": 1,
    "number": 0.5,
    "boolean": True,
    "uuid": "01935b0e-7c1a-7000-8000-0123456789ab",
    "date-time": "2026-11-24T12:00:00Z",
}


def _add_example(parameter: dict[str, Any]) -> None:
    """Name an example in the description: Swagger UI would send one in a field of its own with every request."""
    schema = parameter["schema"] = without_null(parameter["schema"])
    inner = schema.get("anyOf", [schema])[0]
    parameter.setdefault("description", inner.get("description", ""))
    by_type = _EXAMPLES.get(inner.get("format") or inner.get("type"), parameter["name"])
    examples = schema.get("examples") or inner.get("examples") or inner.get("enum") or [schema.get("default", by_type)]
    schema.setdefault("examples", examples[:1])
    shown = examples[0] if isinstance(examples[0], str) else json.dumps(examples[0])
    parameter["description"] = f"{parameter['description']} Example: `{shown}`".lstrip()


def _add_headers(path: str, operation: dict[str, Any]) -> None:
    """Declare the response headers that follow from the parameters."""
    sent = {parameter["name"]: parameter["schema"]["examples"][0] for parameter in operation.get("parameters", [])}
    for status, response in operation["responses"].items():
        declared = {}
        if status == "200" and "limit" in sent:
            cursor = "after" if "after" in sent else "since"
            link = f'<{path.format_map(sent)}?{cursor}={sent[cursor]}>; rel="next"'
            declared["Link"] = _texts["headers"]["Link"] | {"example": link}
            if cursor == "after":
                declared["Next-Cursor"] = _texts["headers"]["Next-Cursor"] | {"example": str(sent[cursor])}
        if status in {"200", "304"} and sent.keys() & {"if-match", "if-none-match"}:
            declared |= headers("ETag")
        if declared:
            response.setdefault("headers", {}).update(declared)


def _add_errors(path: str, method: str, operation: dict[str, Any], scopes: list[str]) -> None:
    """Add the general errors and those of authentication. A status may have errors of the route's own as well."""
    oauth = path in OAUTH_PATHS
    kinds = [] if oauth else list(_GENERAL)
    if scopes:
        kinds += [errors.Unauthenticated, errors.InvalidToken, *map(errors.InsufficientScope, scopes)]
        kinds += [errors.ForeignOrigin] if method != "get" else []
        # The first token of a person creates the account, on whichever route that is.
        kinds += (
            [errors.EmailMissing, errors.EmailTaken, errors.ProviderUnavailable] if get_settings().oidc_issuer else []
        )
    own = operation["responses"]
    if "HTTPValidationError" in str(own.get("422")):
        del own["422"]  # FastAPI's own, which is not what we return
    for status, general in problems(*kinds, oauth=oauth).items():
        response = own.setdefault(str(status), general)
        for media_type, content in general["content"].items():
            for example in content["examples"].values():
                example["x-general"] = True  # static/docs.js leaves out what all routes share
            mine = response.setdefault("content", {}).setdefault(media_type, {"schema": content["schema"]})
            mine["examples"] = content["examples"] | mine.get("examples", {})

"""What OpenAPI says beside the routes: each error with its problem type, the OAuth forms, and how signing in works."""

from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.core.errors import (
    OAUTH_PATHS,
    AppError,
    BadRequest,
    ContentTooLarge,
    EmailMissing,
    EmailTaken,
    ForeignOrigin,
    HeadTooLarge,
    InsufficientScope,
    Internal,
    Invalid,
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidToken,
    ProviderUnavailable,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnsupportedGrantType,
    oauth_error,
    problem,
)
from app.core.scopes import SCOPES
from app.core.settings import get_settings
from app.http.examples import describe_fields, describe_parameter, describe_success, headers

_BEGIN = """
The backend that a mobile app needs on day one.
"""
_LOCAL = """
**Sign in.** Register, then *Authorize* with e-mail and password; leave the client fields empty. From a shell:
`POST /api/auth/token` with `grant_type=password`.

**Go on.** An access token lives ten minutes. `POST /api/auth/token` with `grant_type=refresh_token` gives the next
pair; the refresh token rotates each time. Store the new pair before you use it, and have one refresh under way at a
time. Did the answer get lost? Send the same request again, now or in five days: you get a valid pair. Only
`invalid_grant` means that you are signed out; 429, 503 and network errors never do.
"""
_PROVIDER_ALONE = """
**Sign in** at the identity provider, and send its access token with each request. There are no passwords here.
"""
_END = """
**Errors** are `application/problem+json` (RFC 9457). `detail` is a sentence for people, `type` is stable for programs.
"""

TAGS = [
    {
        "name": "auth",
        "description": "In and out: tokens (RFC 6749), revocation (RFC 7009), introspection (RFC 7662), mailed links.",
    },
    {"name": "services", "description": "For other services: how our tokens are verified (RFC 8414, RFC 7517)."},
    {"name": "account", "description": "Your own account."},
    {"name": "sessions", "description": "Your signed-in devices: see them, sign one or all others out."},
    {"name": "users", "description": "Other accounts and the roles, with `users:read` and `users:write`."},
    {
        "name": "operations",
        "description": "Your ledger: what changed since a revision, totals, and CSV in and out.",
    },
    {"name": "heroes", "description": "Heroes and their teams. To change them, `heroes:write`."},
    {
        "name": "tasks",
        "description": "Everybody's tasks. Author and assignee change one; who had it before is its history.",
    },
    {
        "name": "jobs",
        "description": "What takes longer than an answer: start it, watch it, fetch its result.",
    },
    {
        "name": "chat",
        "description": "Rooms that everybody reads and writes; also `WS /api/chat/ws`, see the README.",
    },
    {"name": "health", "description": "For load balancers and whoever operates this."},
]

_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "Stable: what a program decides by.",
        },
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for a person."},
        "errors": {
            "type": "array",
            "description": "With 422: where and why. Never repeats the input.",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        },
    },
}
_OAUTH_ERROR_SCHEMA = {
    "title": "OAuthError",
    "description": "RFC 6749 section 5.2.",
    "type": "object",
    "required": ["error", "error_description", "detail"],
    "properties": {name: {"type": "string"} for name in ("error", "error_description", "detail")},
}
_BEARER = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
_VALIDATION_ERROR = "HTTPValidationError"
# Which headers go with which status.
_HEADERS = {
    401: headers("WWW-Authenticate"),
    403: headers("WWW-Authenticate"),
    405: headers("Allow"),
    429: headers("Retry-After", "RateLimit-Policy", "RateLimit"),
    503: headers("Retry-After"),
}


def problems(*kinds: type[AppError] | AppError) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can raise these."""
    return _answers("application/problem+json", "Problem", problem, kinds)


def oauth_answers(*kinds: type[AppError] | AppError) -> dict[int | str, dict[str, Any]]:
    """The same at an OAuth endpoint."""
    return _answers("application/json", "OAuthError", oauth_error, kinds)


def _answers(
    media_type: str,
    schema: str,
    members: Callable[[AppError], dict[str, Any]],
    kinds: Iterable[type[AppError] | AppError],
) -> dict[int | str, dict[str, Any]]:
    """By status, with an example of each kind."""
    answers: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        content = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": {}}}
        new = {"description": kind.title, "content": content}
        if kind.status in _HEADERS:
            new["headers"] = _HEADERS[kind.status]
        answer = answers.setdefault(kind.status, new)
        example = {"summary": kind.title, "value": members(kind if isinstance(kind, AppError) else kind())}
        answer["content"][media_type]["examples"][getattr(kind, "error", kind.type)] = example
    return answers


# What any route may answer; routes name only what is their own.
EVERYWHERE = problems(BadRequest, ContentTooLarge, Invalid, TooManyRequests, HeadTooLarge, Internal, Unavailable)

# RFC 6749 section 5.2. With 429 and 503 a client is still signed in.
OAUTH_ANSWERS = oauth_answers(
    *(InvalidRequest, InvalidGrant, InvalidScope, UnsupportedGrantType, InvalidClient),
    *(ContentTooLarge, TooManyRequests, HeadTooLarge, Internal, Unavailable),
)

CREATED: dict[int | str, dict[str, Any]] = {201: {"headers": headers("Location")}}


def operation_id(route: APIRoute) -> str:
    """The name of a route in generated clients: its function's name in camel case."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


def description() -> str:
    return _BEGIN + (_LOCAL if get_settings().local_accounts == "on" else _PROVIDER_ALONE) + _END


def install_openapi(app: FastAPI) -> None:
    """Make `app.openapi()` complete: the shared schemas, and the answers that every secured route may give."""
    settings = get_settings()

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                license_info=app.license_info,
            )
            schema["components"]["schemas"] |= {"Problem": _PROBLEM_SCHEMA, "OAuthError": _OAUTH_ERROR_SCHEMA}
            if settings.local_accounts == "off":
                whose = f"Paste an access token of {settings.oidc_issuer}."
                schema["components"]["securitySchemes"]["muster"] = _BEARER | {"description": whose}
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    _summarize(operation)
                    describe_success(operation)
                    for parameter in operation.get("parameters", []):
                        describe_parameter(parameter)
                    _describe(operation, path, method)
            # In the documentation a collection stands before what is in it, whichever route is tried first.
            schema["paths"] = dict(sorted(schema["paths"].items(), key=lambda item: item[0].count("/")))
            for unused in (_VALIDATION_ERROR, "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            for name, described in schema["components"]["schemas"].items():
                describe_fields(name, described)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's documented way


def _summarize(operation: dict[str, Any]) -> None:
    """The line that Swagger UI shows of a route is the first sentence of its docstring, and not its function's name."""
    first = " ".join(operation["description"].split()).partition(". ")[0]
    operation["summary"] = first.removesuffix(".").replace("`", "")  # which is shown as it is, no Markdown


def _describe(operation: dict[str, Any], path: str, method: str) -> None:
    scopes = [scope for requirement in operation.get("security", []) for scope in requirement["muster"]]
    refusals: list[type[AppError] | AppError] = [Unauthenticated, InvalidToken, *map(InsufficientScope, scopes)]
    if get_settings().oidc_issuer:  # an account is made at the first sight of somebody, on whichever route
        refusals += [EmailMissing, EmailTaken, ProviderUnavailable]
    refusals += [ForeignOrigin] if method != "get" else []
    everywhere, answers = ({}, oauth_answers) if path in OAUTH_PATHS else (EVERYWHERE, problems)
    general = everywhere | (answers(*refusals) if scopes else {})
    for status, answer in general.items():
        own = operation["responses"].get(str(status))
        if own is None or _VALIDATION_ERROR in str(own):  # FastAPI's own 422, which is not what we answer
            operation["responses"][str(status)] = answer
        else:
            _add_examples(own, answer)
    if scopes:
        needed = ", ".join(f"`{scope}` ({SCOPES[scope][0].lower()}{SCOPES[scope][1:]})" for scope in scopes)
        operation["description"] = f"{operation['description']}\n\nScope: {needed}."


def _add_examples(own: dict[str, Any], general: dict[str, Any]) -> None:
    """A status that a route has kinds of its own for still has the general ones as well."""
    for media_type, content in general["content"].items():
        mine = own.setdefault("content", {}).setdefault(media_type, {"schema": content["schema"]})
        mine["examples"] = content["examples"] | mine.get("examples", {})

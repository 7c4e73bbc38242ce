"""The parts of the OpenAPI document that routes declare, such as their errors. openapi_document.py adds the rest."""

import tomllib
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import MISSING, BaseModel, Field

from app.core import errors, oauth_errors
from app.core.oauth_errors import InvalidClient, InvalidGrant, InvalidRequest, InvalidScope, UnsupportedGrantType

Responses: TypeAlias = dict[int | str, dict[str, Any]]
Kind: TypeAlias = type[errors.AppError] | errors.AppError

TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


class FieldError(BaseModel):
    """An error in one field."""

    loc: list[str] = Field(description="Where: the part of the request, then the names or numbers that lead to it.")
    msg: str = Field(description="Why: a sentence for a person.")
    type: str = Field(description="The kind of error, for programs to match on.")


class Problem(BaseModel):
    """An error as a problem document (RFC 9457)."""

    type: str = Field(description="Stable, for programs to match on.", json_schema_extra={"format": "uri-reference"})
    title: str = Field(description="A short summary of the problem type.")
    status: int = Field(ge=400, le=599, description="The status code of the response.")
    detail: str = Field(description="A sentence for a person.")
    errors: list[FieldError] | MISSING = Field(default=MISSING, description="With 422: where and why, never the input.")
    field: str | MISSING = Field(default=MISSING, description="With 409 or wrong-password: the field at fault.")
    scope: str | MISSING = Field(default=MISSING, description="With insufficient-scope: what is required.")
    renewable: bool | MISSING = Field(default=MISSING, description="With invalid-link: a new one can be mailed.")
    platform: str | MISSING = Field(default=MISSING, description="With app-too-old: the platform of the app.")
    minimum_version: str | MISSING = Field(default=MISSING, description="With app-too-old: its lowest version.")
    ticket: str | MISSING = Field(default=MISSING, description="With internal: identifies the log entry.")


class OAuthError(BaseModel):
    """An error of an OAuth endpoint (RFC 6749 section 5.2)."""

    error: str = Field(description="The error code of RFC 6749, for programs to match on.")
    error_description: str = Field(description="A sentence for a developer.")
    detail: str = Field(description="The same sentence.")


# Schemas that the document refers to and FastAPI does not know of.
SHARED: list[type[BaseModel]] = [Problem, OAuthError]
# The headers of errors, with the statuses that have them.
_HEADERS = {"WWW-Authenticate": {401, 403}, "Retry-After": {429, 503}, "RateLimit-Policy": {429}, "RateLimit": {429}}


def headers(*names: str) -> dict[str, Any]:
    """The `headers` of a response."""
    return {name: TEXTS["headers"][name] for name in names}


def problems(*kinds: Kind, oauth: bool = False) -> Responses:
    """The `responses` of a route that can raise these errors, with an example of each; `oauth` selects RFC 6749's."""
    schema, media_type = (OAuthError, "application/json") if oauth else (Problem, "application/problem+json")
    members = oauth_errors.oauth_error if oauth else errors.problem
    responses: Responses = {}
    for kind in kinds:
        content = {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}, "examples": {}}
        new = {"description": kind.title, "content": {media_type: content}}
        if names := [name for name, statuses in _HEADERS.items() if kind.status in statuses]:
            new["headers"] = headers(*names)
        response = responses.setdefault(kind.status, new)
        example = {"summary": kind.title, "value": members(kind if isinstance(kind, errors.AppError) else kind())}
        response["content"][media_type]["examples"][kind.type] = example
    return responses


def located(example: str, *others: str, status: int = 201) -> Responses:
    """The response of a route that creates something, with its Location, such as `example`."""
    location = TEXTS["headers"]["Location"] | {"example": example}
    return {status: {"headers": headers(*others) | {"Location": location}}}


# The errors that every route may return, so that routes declare their own only.
ANY: list[Kind] = [errors.RequestTimeout, errors.ContentTooLarge, errors.UnsupportedMediaType, errors.TooManyRequests]
ANY += [errors.AppTooOld, errors.HeadTooLarge, errors.Internal, errors.Unavailable]
GENERAL = [errors.BadRequest, errors.Invalid, *ANY]
# RFC 6749 section 5.2.
OAUTH_ERRORS = problems(InvalidRequest, InvalidGrant, InvalidScope, UnsupportedGrantType, InvalidClient, oauth=True)


def form_body(schema: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its form by hand."""
    SHARED.append(schema)
    content = {"application/x-www-form-urlencoded": {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}

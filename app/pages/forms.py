"""HTML forms: the values that a person entered, and what the person is told when the API rejects them.

The sentences are in texts.toml: by problem type of the API, by field, by notice.
"""

import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from app.core.errors import AppError, BadRequest
from app.models.types import MAX_EMAIL
from app.pages.api_client import ApiError, call_api

FORM = "application/x-www-form-urlencoded"
# The person can correct these, or wait. Every other error gets a page of its own.
CORRECTABLE = {400, 403, 409, 412, 415, 422, 429, 503}

TEXTS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("texts.toml").read_text(encoding="utf-8"))
CORRECT_FIELDS = "Please correct the highlighted fields and try again."
# The API words these for people: what a password needs, in numbers, and where a period ends.
_WORDED_BY_API = {"password_too_short", "password_too_long", "password_too_common", "period_backwards"}


@dataclass
class Form:
    values: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    message: str = ""
    problem: Mapping[str, Any] = field(default_factory=dict)  # the document of the API
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    def required(self, *names: str) -> dict[str, str]:
        """The named fields, empty ones too."""
        return {name: self[name] for name in names}

    def optional(self, *names: str) -> dict[str, str]:
        """The named fields that are not empty: the API would take an empty string as a value."""
        return {name: self[name] for name in names if self[name]}

    def reject(self, error: ApiError) -> None:
        """Add the error's messages: beside each field that it names, or else above the form."""
        self.problem = error.members
        self.errors |= describe_fields(error)
        self.message = describe(error)[1] if self.errors.keys().isdisjoint(self.values) else CORRECT_FIELDS
        self.status, self.headers = error.status, error.headers


async def read_form(request: Request) -> Form:
    """Read a form in UTF-8. The last value of a repeated field counts. BodyGuard limits the size of the body."""
    if request.headers.get("content-type", FORM).partition(";")[0].strip().lower() != FORM:
        raise BadRequest
    try:
        body = (await request.body()).decode()
        return Form(dict(parse_qsl(body, keep_blank_values=True, errors="strict", max_num_fields=50)))
    except ValueError:
        raise BadRequest from None


PlainForm = Annotated[Form, Depends(read_form)]


# ---- Errors in words ----


def describe(error: AppError | ApiError) -> tuple[str, str]:
    """The heading and the sentence for an error."""
    heading, sentence = TEXTS["problems"].get(error.type, TEXTS["problems"]["other"])
    return heading, sentence.format(wait=_wait(error.headers.get("Retry-After")), ticket=error.members.get("ticket"))


def describe_fields(error: ApiError) -> dict[str, str]:
    """A sentence for each field that the error names."""
    problem, sentences = error.members, TEXTS["fields"]
    if "line" in problem:  # an error in an imported file: `detail` names the line and says what is wrong
        return {"lines": str(problem["detail"])}
    errors: dict[str, str] = {}
    for mistake in problem.get("errors", []):
        name = str(mistake["loc"][:2][-1])  # the second part: the first is "body" or "query"
        is_worded = mistake["type"] in _WORDED_BY_API
        errors.setdefault(name, mistake["msg"] if is_worded else sentences.get(name, sentences["other"]))
    if field := problem.get("field"):
        errors[field] = describe(error)[1]
    return errors


def _wait(retry_after: str | None) -> str:
    """The seconds of a Retry-After header in words."""
    seconds = int(retry_after) if retry_after and retry_after.isdecimal() else 0
    if seconds < 10:
        return "a moment"
    if seconds <= 90:
        return f"{seconds} seconds"
    minutes = ceil(seconds / 60)
    return f"{minutes} minutes" if minutes <= 90 else f"{ceil(minutes / 60)} hours"


# ---- New passwords ----


@asynccontextmanager
async def checking_password(request: Request, form: Form, field: str) -> AsyncIterator[None]:
    """If the API rejects another field of the form, also mark a new password that it would reject next."""
    try:
        yield
    except ApiError as error:
        if error.status < 429:  # else there is nothing to correct
            with suppress(ApiError):
                await check_new_password(request, form, field)
        raise


async def check_new_password(request: Request, form: Form, field: str) -> None:
    """Mark the field if the API would reject the password in it; ApiError if the API does not check it now."""
    related = [form[name][:MAX_EMAIL] for name in ("email", "username", "name")]
    try:
        await call_api(request, "POST", "/api/auth/check-password", json={"password": form[field], "related": related})
    except ApiError as error:
        if error.status != 422:
            raise
        if sentence := describe_fields(error).get("password"):
            form.errors[field] = sentence

"""HTML forms: the values that a person entered, and the API's errors about them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response

from app.core.errors import BadRequest, ForeignOrigin
from app.core.settings import get_settings
from app.http.cookies import origin_allowed
from app.pages.api_client import Api, ApiError
from app.pages.texts import CORRECT_FIELDS, describe, describe_fields

MAX_FIELDS = 50
FORM = "application/x-www-form-urlencoded"
# A person can correct these, or wait. Any other error gets a page of its own.
CORRECTABLE = {400, 403, 409, 412, 415, 422, 429, 503}


@dataclass
class Form:
    """`show` shows the form again when the API rejects it. Without it, an error page does."""

    values: dict[str, str] = field(default_factory=dict)
    show: Callable[[Request, "Form"], Awaitable[Response]] | None = None
    errors: dict[str, str] = field(default_factory=dict)
    faulty: list[dict[str, Any]] = field(default_factory=list)  # the API's mistakes in the lines of an imported file
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
        """The named fields that are filled: to the API an empty string is a value."""
        return {name: self[name] for name in names if self[name]}

    def reject(self, error: ApiError) -> None:
        """Add the error's messages: beside each field that it names, or else above the form."""
        self.problem = error.members
        self.errors |= describe_fields(error.type, error.members)
        self.faulty = error.members["errors"] if "line" in error.members else []
        is_marked = not self.errors.keys().isdisjoint(self.values)
        wait = error.headers.get("Retry-After")
        self.message = CORRECT_FIELDS if is_marked else describe(error.type, retry_after=wait)[1]
        self.status, self.headers = error.status, error.headers


async def read_form(request: Request) -> Form:
    """Read a form in UTF-8. A repeated field has its last value. main.py limits the size of the body."""
    # Forms are our own pages' alone: others would type passwords into them, or consent in a person's stead.
    if not origin_allowed(request, get_settings(), others=False):
        raise ForeignOrigin
    if request.headers.get("content-type", FORM).partition(";")[0].strip().lower() != FORM:
        raise BadRequest
    try:
        body = (await request.body()).decode()
        return Form(dict(parse_qsl(body, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)))
    except ValueError:
        raise BadRequest from None


PlainForm = Annotated[Form, Depends(read_form)]


# ---- New passwords ----


@asynccontextmanager
async def judging(request: Request, form: Form, field: str) -> AsyncIterator[None]:
    """If the API rejects what else is in the form, mark a new password too that it would reject next."""
    try:
        yield
    except ApiError as error:
        if error.status < 429:  # else there is nothing to correct
            await judge_password(request, form, field)
        raise


async def judge_password(request: Request, form: Form, field: str) -> ApiError | None:
    """Mark the field if the API would reject the password in it. Returns the error if the API does not judge it now."""
    related = [form[name][:254] for name in ("email", "username", "name")]
    try:
        await Api(request).call("POST", "/api/auth/check-password", json={"password": form[field], "related": related})
    except ApiError as error:
        if error.status != 422:
            return error
        if sentence := describe_fields(error.type, error.members).get("password"):
            form.errors[field] = sentence
    return None

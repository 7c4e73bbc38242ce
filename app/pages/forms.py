"""HTML forms: the values that a person entered, and the API's errors about them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request

from app.core.errors import BadRequest, ForeignOrigin
from app.core.settings import get_settings
from app.http.cookies import origin_allowed
from app.pages.api_client import ApiError
from app.pages.texts import CORRECT_FIELDS, describe, describe_fields

MAX_FIELDS = 50
# A person can correct these, or wait. Any other error gets a page of its own.
CORRECTABLE = {400, 403, 409, 412, 422, 429, 503}


@dataclass
class Form:
    """`template` shows the form again when the API rejects it, with the values that `load` gets from the API."""

    values: dict[str, str] = field(default_factory=dict)
    template: str = ""
    load: Callable[[Request], Awaitable[dict[str, Any]]] | None = None
    errors: dict[str, str] = field(default_factory=dict)
    faulty: list[dict[str, Any]] = field(default_factory=list)  # the API's mistakes in the lines of an imported file
    message: str = ""
    problem: Mapping[str, Any] = field(default_factory=dict)  # the document of the API
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    def required(self, *names: str) -> dict[str, str]:
        """The named fields, empty ones too."""
        return {name: self[name] for name in names}

    def optional(self, *names: str) -> dict[str, str]:
        """The named fields that are filled: to the API an empty string is a value."""
        return {name: self[name] for name in names if self[name]}

    def is_correctable(self, error: ApiError) -> bool:
        return bool(self.template) and error.status in CORRECTABLE and error.type != "foreign-origin"

    def reject(self, error: ApiError) -> None:
        """Add the error's messages: beside each field that it names, or else above the form."""
        self.problem = error.members
        self.errors |= describe_fields(error.type, error.members)
        self.faulty = error.members["errors"] if "line" in error.members else []
        is_marked = not self.errors.keys().isdisjoint(self.values)
        wait = error.headers.get("Retry-After")
        self.message = CORRECT_FIELDS if is_marked else describe(error.type, retry_after=wait)[1]
        self.status, self.headers = error.status, error.headers


def show_on_error(request: Request, form: Form) -> Form:
    """Have the form shown again, instead of an error page, when the API rejects it (error_pages.py)."""
    request.state.form = form
    return form


async def read_form(
    request: Request, template: str = "", load: Callable[[Request], Awaitable[dict[str, Any]]] | None = None
) -> Form:
    """Read a form in UTF-8. A repeated field has its last value. main.py limits the size of the body."""
    if not origin_allowed(request, get_settings()):  # the API asks only those that send a cookie
        raise ForeignOrigin
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise BadRequest
    try:
        body = (await request.body()).decode()
        values = dict(parse_qsl(body, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS))
    except ValueError:
        raise BadRequest from None
    return show_on_error(request, Form(values, template, load))

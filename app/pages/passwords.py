"""What the API says of a new password while it is typed, and beside other mistakes that kept the API from it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from app.pages.api_client import Api, ApiError
from app.pages.forms import Form
from app.pages.texts import describe_fields


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

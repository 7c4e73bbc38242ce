"""Errors as pages: the rejected form again, an error page in plain words, or a redirect to the sign-in."""

from fastapi import Request
from fastapi.responses import Response

from app.core import metrics
from app.core.errors import AppError
from app.http.error_handlers import classify
from app.pages.api_client import ApiError
from app.pages.forms import CORRECTABLE, Form
from app.pages.rendering import page, to_sign_in
from app.pages.texts import describe


async def answer_page(request: Request, error: Exception) -> Response:
    """The response to any exception. The API has counted and logged its own errors already."""
    if not isinstance(error, ApiError):
        known = await classify(request, error)
        metrics.count("errors", type=known.type)
        return await _error_page(request, known)
    if error.status == 401:
        return to_sign_in(request, next=_back(request))
    form: Form | None = request.scope.get("state", {}).pop("form", None)  # once: what it loads may fail as well
    if form and form.show and error.status in CORRECTABLE and error.type != "foreign-origin":
        form.reject(error)
        return await form.show(request, form)
    return await _error_page(request, error)


def _back(request: Request) -> str:
    """This page, to come back to after the sign-in; after a form, the page of it."""
    is_get = request.method == "GET"
    path = request.url.path if is_get else f"/{request.url.path.split('/')[1]}"
    return f"{path}?{request.url.query}" if request.url.query and is_get else path


async def _error_page(request: Request, error: AppError | ApiError) -> Response:
    wait, ticket = error.headers.get("Retry-After"), error.members.get("ticket")
    title, detail = describe(error.type, retry_after=wait, ticket=ticket)
    # Without the name of who is signed in: the API may be what failed, and would have to be waited for once more.
    form = Form(status=error.status, headers=error.headers)
    return await page(request, "error.html", form=form, title=title, detail=detail, me=None)

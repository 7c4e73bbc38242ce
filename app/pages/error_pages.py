"""Errors as pages: the rejected form again, an error page in plain words, or a redirect to the sign-in."""

from fastapi import Request
from fastapi.responses import Response

from app.core import metrics
from app.core.errors import AppError
from app.core.settings import get_settings
from app.http.cookies import set_cookie
from app.http.error_handlers import classify
from app.pages.api_client import ApiError
from app.pages.forms import Form
from app.pages.rendering import is_signed_in, page, redirect
from app.pages.texts import describe


async def answer_page(request: Request, error: Exception) -> Response:
    """The response to any exception. The API has counted and logged its own errors already."""
    if not isinstance(error, ApiError):
        known = await classify(request, error)
        metrics.count("errors", type=known.type)
        return await _error_page(request, known)
    if error.status == 401:
        return _to_sign_in(request)
    form: Form | None = request.scope.get("state", {}).pop("form", None)  # once: what it loads may fail as well
    if form and form.is_correctable(error):
        form.reject(error)
        values = await form.load(request) if form.load else {}
        return await page(request, form.template, form=form, **values)
    return await _error_page(request, error)


def _to_sign_in(request: Request) -> Response:
    """Redirect to the sign-in, which returns here, and remove the cookie of a session that has ended."""
    is_get = request.method == "GET"
    path = request.url.path if is_get else f"/{request.url.path.split('/')[1]}"
    query = f"?{request.url.query}" if request.url.query and is_get else ""
    expired = {"done": "expired"} if is_signed_in(request) else {}
    request.state.set_cookie = set_cookie(get_settings(), "", 0)
    return redirect("/sign-in", next=path + query, **expired)


async def _error_page(request: Request, error: AppError | ApiError) -> Response:
    wait, ticket = error.headers.get("Retry-After"), error.members.get("ticket")
    title, detail = describe(error.type, retry_after=wait, ticket=ticket)
    response = await page(request, "error.html", status=error.status, title=title, detail=detail)
    response.headers.update(error.headers)
    return response

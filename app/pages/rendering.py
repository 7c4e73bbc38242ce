"""Shared by all pages: rendering templates, redirects, reading lists of the API, headers of responses, and errors."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.core import metrics
from app.core.errors import AppError
from app.core.settings import get_settings
from app.core.templating import render
from app.http.cookies import cookie_token, set_cookie
from app.http.error_handlers import classify
from app.pages.api_client import ApiError, call_api, get_json, is_api_remote
from app.pages.forms import CORRECTABLE, TEXTS, Form, describe, read_form


def page_headers() -> dict[str, str]:
    """The headers of every response. The referrer policy lets the forms of our own pages send their Origin."""
    url = urlsplit(get_settings().api_url or "")
    origin = f"{url.scheme}://{url.netloc}"
    api = f" {origin} {origin.replace('http', 'ws', 1)}" if url.netloc else ""
    policy = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; "
        f"connect-src 'self'{api}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "referrer-policy": "same-origin"}


View = Callable[[Request], Awaitable[Response]]

ME = "/api/users/me"
LATEST = "10"  # rows of a list that is only a part of its page


async def page(request: Request, template: str, *, form: Form | None = None, **values: Any) -> Response:
    """A rendered template. `form` is shown until the person sends one. If that is rejected, the page has its status."""
    form = getattr(request.state, "form", None) or form or Form()
    settings = get_settings()
    html = render(
        f"pages/{template}",
        form=form,
        path=request.url.path,
        signed_in=is_signed_in(request),
        person=values["me"] if "me" in values else await _person(request),
        local_accounts=settings.local_accounts == "on",
        by_provider=settings.has_provider_login,
        has_mailbox=settings.has_mailbox,
        texts=TEXTS,
        notice=TEXTS["notices"].get(request.query_params.get("done", "")),
        api_url=settings.api_url if is_api_remote(request) else "",
        pages_url=str(request.base_url).rstrip("/") if is_api_remote(request) else "",
        **values,
    )
    return HTMLResponse(html, form.status, {"Cache-Control": "private, no-store", **form.headers})


def form_of(show: View) -> Any:
    """The dependency of a route that receives a form of the page `show`."""

    async def read(request: Request) -> Form:
        return show_on_error(request, await read_form(request), show)

    return Depends(read)


def show_on_error(request: Request, form: Form, show: View) -> Form:
    """Have `show` show the form again, instead of an error page, when the API rejects it (error_page_response)."""
    request.state.form, request.state.show = form, show
    return form


async def _person(request: Request) -> Any:
    """The person who is signed in, for the header; None if the API cannot tell, which must not fail the page."""
    try:
        return getattr(request.state, "me", None) or (await get_json(request, ME) if is_signed_in(request) else None)
    except (ApiError, AppError):
        return None


def is_signed_in(request: Request) -> bool:
    """Whether the browser sent a session cookie. Only the API can tell whether it is still valid."""
    return bool(cookie_token(request, get_settings()))


def redirect(path: str, anchor: str = "", **query: str) -> Response:
    """Redirect, to be followed with a GET. The address is relative, so it stays on the host that the browser knows."""
    return RedirectResponse((f"{path}?{urlencode(query)}" if query else path) + anchor, 303)


def to_sign_in(request: Request, **query: str) -> Response:
    """Redirect to the sign-in: nobody is signed in, or the session has ended and its cookie is removed."""
    expired = {"done": "expired"} if is_signed_in(request) else {}
    request.state.set_cookie = set_cookie(get_settings(), "", 0)
    return redirect("/sign-in", **query, **expired)


async def pass_on(request: Request, path: str, **query: str) -> Response:
    """A file of the API, with its own security policy, for browsers that may have no cookie for the API."""
    file = await call_api(request, "GET", path, params=query)
    names = ("content-type", "content-disposition", "content-security-policy")
    return Response(file.content, headers={name: file.headers[name] for name in names if name in file.headers})


class Listing(NamedTuple):
    """One page of a list. `next` and `previous` are the query parameters of its neighbors; None if there is none."""

    rows: list[Any]
    next: dict[str, str] | None
    previous: dict[str, str] | None


async def read_list(request: Request, path: str, **query: str) -> Listing:
    """One page of a list of the API.

    The API's lists go forward only. So `after` in this page's own address holds the cursors of the pages before this
    one, too.
    """
    cursors = [cursor for cursor in request.query_params.get("after", "").split(".") if cursor]
    response = await call_api(request, "GET", path, params=query | _after(cursors[-1:]))
    following = response.headers.get("next-cursor")
    following_page = _after([*cursors[-20:], following]) if following else None  # an address remembers 20 pages
    return Listing(response.json(), following_page, _after(cursors[:-1]) if cursors else None)


def _after(cursors: list[str]) -> dict[str, str]:
    """The query parameters of the page after the last of these cursors; of the first page if there is none."""
    return {"after": ".".join(cursors)} if cursors else {}


# ---- Errors ----


async def error_page_response(request: Request, error: Exception) -> Response:
    """The response to any exception: the rejected form again, an error page, or a redirect to the sign-in.

    The API has counted and logged its own errors already.
    """
    if not isinstance(error, ApiError):
        known = classify(request, error)
        metrics.count("errors", type=known.type)
        return await _error_page(request, known)
    if error.status == 401:  # the sign-in leads back to this page or, after a form was sent, to the form's page
        path = request.url.path if request.method == "GET" else f"/{request.url.path.split('/')[1]}"
        return to_sign_in(request, next=f"{path}?{request.url.query}" if request.url.query else path)
    show: View | None = request.scope.get("state", {}).pop("show", None)  # only once: showing it may fail too
    if show and error.status in CORRECTABLE:
        request.state.form.reject(error)
        try:
            return await show(request)
        except Exception as failure:
            return await error_page_response(request, failure)
    return await _error_page(request, error)


async def _error_page(request: Request, error: AppError | ApiError) -> Response:
    title, detail = describe(error)
    request.state.form = Form(status=error.status, headers=error.headers)
    again = request.method == "GET" and error.status in {429, 500, 503}  # the same page may work later
    # Without the name of the person who is signed in: the API may be what failed, and asking it again takes time.
    return await page(request, "error.html", title=title, detail=detail, again=again, me=None)

"""Shared by all pages: rendering templates, redirects, reading lists of the API, and the headers of responses."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.core.settings import Settings, get_settings
from app.core.templating import render
from app.http.cookies import cookie_token
from app.pages.api_client import Api
from app.pages.forms import Form
from app.pages.texts import NOTICES


def page_headers(settings: Settings, *, apart: bool) -> dict[str, str]:
    """The headers of every response. The referrer policy lets the forms of our own pages send their Origin."""
    api = f" {_origin(settings.api_url)} {_origin(settings.api_url, 'ws')}" if apart and settings.api_url else ""
    policy = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; "
        f"connect-src 'self'{api}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "referrer-policy": "same-origin"}


def _origin(url: str, scheme: str = "http") -> str:
    address = urlsplit(url)
    return f"{address.scheme.replace('http', scheme, 1)}://{address.netloc}"


def page(request: Request, template: str, *, form: Form | None = None, status: int = 200, **values: Any) -> Response:
    """A rendered template. A rejected form gives its status and its headers to the page that shows it again."""
    form = form or Form()
    headers = {"Cache-Control": "private, no-store", **form.headers}
    settings, is_apart = get_settings(), request.app.state.api is None
    html = render(
        f"pages/{template}",
        form=form,
        path=request.url.path,
        query=request.url.query,
        signed_in=is_signed_in(request),
        local_accounts=settings.local_accounts == "on",
        by_provider=settings.has_provider_login,
        notice=NOTICES.get(request.query_params.get("done", "")),
        api_url=(settings.api_url or "") if is_apart else "",
        pages_url=str(request.base_url).rstrip("/") if is_apart else "",
        **values,
    )
    return HTMLResponse(html, form.status if form.status >= 400 else status, headers)


def is_signed_in(request: Request) -> bool:
    """Whether the browser sent a session cookie. Only the API can tell whether it is still valid."""
    return bool(cookie_token(request, get_settings()))


def redirect(path: str, **query: str) -> Response:
    """Redirect to a page after a POST. The address is relative, so it stays on the host that the browser knows."""
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)


async def read_list(request: Request, path: str, **query: str) -> tuple[list[Any], str | None]:
    """One page of a list of the API, from the cursor in this page's own address; and the cursor of the next page."""
    if after := request.query_params.get("after"):
        query["after"] = after
    response = await Api(request).call("GET", path, query=query)
    next_url = response.links.get("next", {}).get("url", "")  # RFC 8288
    return response.json(), dict(parse_qsl(urlsplit(next_url).query)).get("after")

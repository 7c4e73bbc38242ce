"""What all pages share: how one is made, how a form is read and shown again, where an error leads."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.core import metrics
from app.core.errors import BadRequest
from app.core.settings import Settings, get_settings
from app.core.templating import render
from app.http.cookies import cookie_token, set_cookie
from app.http.error_handlers import as_refusal
from app.pages.api_client import Api, Refused

# What the address may ask to be told: a page never shows words from it.
NOTICES = {
    "added": "The operation is recorded.",
    "changed": "The operation is changed.",
    "deleted": "The operation is deleted.",
    "name": "Your name is changed.",
    "password": "Your password is changed, and every other device is signed out.",
    "email": "Open the link that was sent to the new address. Until then the old one stays.",
    "verification": "A new link is on its way to your address.",
    "verified": "Your address is confirmed.",
    "reset": "Your password is changed. Sign in with the new one.",
    "signed-out": "You are signed out.",
    "expired": "Your session has ended. Sign in again.",
    "gone": "Your account is deleted.",
    "device": "The device is signed out.",
    "devices": "Every other device is signed out.",
    "started": "The statement is being made.",
    "cancelled": "The job is cancelled.",
}
# Why the identity provider's answer signed nobody in, by the type of the error; for what is not here, PROBLEM.
PROBLEMS = {
    "sign-in-refused": "The identity provider did not let you in, or it was cancelled there.",
    "sign-in-stale": "That took too long, or it began in another window. Try again.",
    "email-taken": "Another account here has your e-mail address. Sign in to that, or ask whoever runs this service.",
    "email-missing": "The identity provider told no e-mail address of yours. Ask whoever runs it.",
    "invalid-token": "Your account here is disabled.",
    "provider-unavailable": "The identity provider does not answer. Try again shortly.",
    "too-many-requests": "Too many requests. Wait a minute, then try again.",
}
PROBLEM = "You could not be signed in. Try again."
_MAX_FIELDS = 50
# What a person can mend in the form itself; any other refusal gets a page of its own.
_MENDABLE = {400, 403, 409, 412, 422, 429, 503}


def page_headers(settings: Settings, *, apart: bool) -> dict[str, str]:
    """Of every answer of the pages. A form's Origin has to be sent, so the referrer is not hidden from ourselves."""
    api = f" {_origin(settings.api_url)} {_origin(settings.api_url, 'ws')}" if apart and settings.api_url else ""
    policy = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; "
        f"connect-src 'self'{api}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "referrer-policy": "same-origin"}


def _origin(url: str, kind: str = "http") -> str:
    parts = urlsplit(url)
    return f"{parts.scheme.replace('http', kind, 1)}://{parts.netloc}"


@dataclass
class Form:
    """What a person typed, and what is wrong with it."""

    values: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    message: str = ""
    status: int = 200
    retry_after: str | None = None

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    def any(self) -> bool:
        return any(self.values.values())

    def query(self) -> str:
        """The filled fields as the beginning of a query."""
        filled = {name: text for name, text in self.values.items() if text}
        return f"{urlencode(filled)}&" if filled else ""

    def only(self, *names: str) -> dict[str, str]:
        """As the API takes it: an empty field is none."""
        return {name: self.values[name] for name in names if self.values.get(name)}

    def refused(self, refused: Refused) -> "Form":
        """To be shown again, each mistake beside its field. Raises `refused` again if no field could mend it."""
        problem = refused.problem
        if refused.status not in _MENDABLE or problem.get("type") == "/problems/foreign-origin":
            raise refused
        for mistake in problem.get("errors", []):
            self.errors.setdefault(str(mistake["loc"][-1]), mistake["msg"])
        named = "current_password" if problem.get("type") == "/problems/wrong-password" else problem.get("field")
        if named:
            self.errors[named] = problem["detail"]
        is_marked = not self.errors.keys().isdisjoint(self.values)
        self.message = "Mend what is marked, and send it again." if is_marked else _in_words(refused)
        self.status = refused.status
        self.retry_after = refused.retry_after
        return self


async def read_form(request: Request) -> Form:
    """A form in UTF-8; of a field that is there twice, the last. The body's size is limited (main.py)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise BadRequest("A form is sent as application/x-www-form-urlencoded.")
    try:
        body = (await request.body()).decode()
        return Form(dict(parse_qsl(body, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)))
    except ValueError:
        raise BadRequest("The form could not be read.") from None


def page(request: Request, template: str, *, form: Form | None = None, status: int = 200, **values: Any) -> Response:
    """A page. With `form` it has the form's status: what was refused is shown again."""
    form = form or Form()
    headers = {"Cache-Control": "private, no-store"}
    if form.retry_after:
        headers["Retry-After"] = form.retry_after
    html = render(
        f"pages/{template}",
        form=form,
        path=request.url.path,
        signed_in=is_signed_in(request),
        local_accounts=get_settings().local_accounts == "on",
        by_provider=get_settings().pages_sign_in_there,
        notice=NOTICES.get(request.query_params.get("done", "")),
        api_url=(get_settings().api_url or "") if request.app.state.api is None else "",
        here="" if request.app.state.api else str(request.base_url).rstrip("/"),
        **values,
    )
    return HTMLResponse(html, form.status if form.status >= 400 else status, headers)


def is_signed_in(request: Request) -> bool:
    """As far as the browser claims it: whether that is true shows when the API is asked."""
    return bool(cookie_token(request, get_settings()))


def redirect(path: str, **query: str) -> Response:
    """After a POST, to what is read with GET; relative, so that it stays on the host that the browser knows."""
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)


def next_page(answer: httpx.Response) -> str | None:
    """The cursor of the list's next page, from its Link header (RFC 8288)."""
    link = answer.links.get("next")
    return dict(parse_qsl(urlsplit(link["url"]).query)).get("after") if link else None


async def read_list(request: Request, path: str) -> tuple[list[Any], str | None]:
    """One page of a list of the API, by the cursor in this page's own address; and the cursor of the next one."""
    after = request.query_params.get("after")
    answer = await Api(request).call("GET", path, query={"after": after} if after else None)
    return answer.json(), next_page(answer)


async def answer_page(request: Request, error: Exception) -> Response:
    """The answer of the pages to any error; the API has counted and logged its own already."""
    if isinstance(error, Refused):
        if error.status == 401:
            return _to_sign_in(request)
        title, retry_after = error.problem.get("title", "Something broke here"), error.retry_after
        return _error_page(request, error.status, title, _in_words(error), {"Retry-After": retry_after})
    known = await as_refusal(request, error)
    metrics.count("errors", type=known.type)
    return _error_page(request, known.status, known.title, known.detail, known.headers)


def _to_sign_in(request: Request) -> Response:
    """Nobody is signed in here, or not any more: the dead cookie goes."""
    where = request.url.path if request.method == "GET" else f"/{request.url.path.split('/')[1]}"
    query = f"?{request.url.query}" if request.url.query and request.method == "GET" else ""
    expired = {"done": "expired"} if is_signed_in(request) else {}
    request.state.set_cookie = set_cookie(get_settings(), "", 0)
    return redirect("/sign-in", next=where + query, **expired)


def _error_page(request: Request, status: int, title: str, detail: str, headers: dict[str, Any]) -> Response:
    response = page(request, "error.html", status=status, title=title, detail=detail)
    response.headers.update({name: text for name, text in headers.items() if text is not None})
    return response


def _in_words(refused: Refused) -> str:
    detail = str(refused.problem.get("detail") or "The server gave no answer that could be read.")
    if refused.status == 429 and refused.retry_after:
        return f"Too many requests. Try again in {refused.retry_after} seconds."
    return detail

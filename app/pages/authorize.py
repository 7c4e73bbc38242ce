"""The authorization endpoint (RFC 6749 section 3.1): a person decides whether an app may use their account."""

from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.core.scopes import SCOPES
from app.pages.api_client import ApiError, call_api
from app.pages.forms import TEXTS, PlainForm
from app.pages.rendering import page, page_headers, redirect, to_sign_in

router = APIRouter()
# The code is in the redirect's address: no cache may store it, and no Referer may contain it.
HEADERS = {"Cache-Control": "no-store", "Pragma": "no-cache", "Referrer-Policy": "no-referrer"}


@router.get("/authorize")
async def authorize(request: Request) -> Response:
    """Ask the person. Without a session, or if the app wants a fresh sign-in (`prompt=login`), they sign in first."""
    try:
        step = await _call(request, "GET")
    except ApiError as error:
        if error.status != 401:
            raise
        return to_sign_in(request, **_back(request))
    if step["redirect"]:
        return await _refused(request, step["redirect"])
    if _wants_fresh_sign_in(request):
        return redirect("/sign-in", **_back(request))
    scopes = [SCOPES[name] for name in step["scopes"]]
    other = f"/sign-in?{urlencode(_back(request) | {'prompt': 'login'})}"
    response = await page(request, "authorize.html", step=step, scopes=scopes, other=other, query=request.url.query)
    response.headers.update(HEADERS | {"Content-Security-Policy": _policy(request)})
    return response


async def _refused(request: Request, address: str) -> Response:
    """The redirect that tells the app of an error. If one of our forms led here, such as the sign-in, browsers apply
    its policy to all redirects that follow, and would block this one, so a page leads on to the app instead."""
    if request.headers.get("sec-fetch-site") != "same-origin":
        return RedirectResponse(address, 303, HEADERS)
    title, detail = TEXTS["authorize"]["refused"]
    response = await page(request, "error.html", title=title, detail=detail, app_address=address)
    response.headers.update(HEADERS | {"Refresh": f"0; url={address}"})
    return response


@router.post("/authorize")
async def decide(request: Request, form: PlainForm) -> Response:
    step = await _call(request, "POST", {"consent": form["decision"] == "continue", "email": form["email"]})
    if not step["redirect"]:
        return redirect(f"/authorize?{request.url.query}")
    return RedirectResponse(step["redirect"], 303, HEADERS)


async def _call(request: Request, method: str, body: dict[str, Any] | None = None) -> Any:
    """The API's response to the request in this page's address."""
    return (await call_api(request, method, f"/api/auth/authorization?{request.url.query}", json=body)).json()


def _back(request: Request) -> dict[str, str]:
    """The query of the sign-in page. `next` leads back here without `prompt`, which has been obeyed by then."""
    prompt = {"prompt": "login"} if _wants_fresh_sign_in(request) else {}
    return {"next": f"/authorize?{request.url.remove_query_params('prompt').query}", **prompt}


def _wants_fresh_sign_in(request: Request) -> bool:
    """Whether `prompt`, which is a list separated by spaces, has `login` (OpenID Connect Core section 3.1.2.1)."""
    return "login" in request.query_params.get("prompt", "").split()


def _policy(request: Request) -> str:
    """The policy of all pages, which also lets the form redirect to the app: browsers apply form-action there too."""
    app = urlsplit(request.query_params["redirect_uri"])
    source = f"https://{app.netloc}" if app.scheme == "https" else f"{app.scheme}:"
    return page_headers()["content-security-policy"].replace("form-action 'self'", f"form-action 'self' {source}")

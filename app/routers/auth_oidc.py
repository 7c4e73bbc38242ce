"""Signing in to the pages at the identity provider. Only browsers come here, so a page shows the errors
(app/http/error_handlers.py)."""

from typing import cast

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse

from app.core.settings import get_settings
from app.dependencies import ServicesDep
from app.http.cookies import cookie_name, set_cookie
from app.http.error_handlers import NO_STORE
from app.http.rate_limit import RouteLimit
from app.http.routing import Router
from app.models.base import utcnow
from app.oauth2.refresh_tokens import SignIn
from app.oidc.accounts import caller_of
from app.oidc.login import LOGIN_TTL, LoginFlow
from app.oidc.provider import Provider
from app.services import Services, services_of
from app.sign_in import device_of, end_browser_session, local_path

router = Router(prefix="/api/auth/oidc")
settings = get_settings()
LOGIN_SUFFIX = "-sign-in"  # appended to the name of the session's cookie


# Both run before anything can fail, so that an error leads to a page of the origin where the person came from. An
# origin counts only while it is one of CORS_ORIGINS.


async def _origin_from_next(request: Request) -> None:
    wanted = request.query_params.get("next", "")
    request.state.pages = next((origin for origin in settings.cors_origins if wanted.startswith(f"{origin}/")), "")


async def _origin_from_state(request: Request) -> None:
    origin = _flow(services_of(request)).origin_of(request.query_params.get("state", ""))
    request.state.pages = origin if origin in settings.cors_origins else ""


@router.get("/login", include_in_schema=False, dependencies=[Depends(_origin_from_next)])
@RouteLimit(settings.limit_login_ip, scope="sign-in")
async def login(request: Request, services: ServicesDep) -> Response:
    """Redirect to the provider. `next` is the page to show afterward: a path, or a URL at one of CORS_ORIGINS."""
    origin, wanted = request.state.pages, request.query_params.get("next", "")
    # The cookie contains the path. Browsers drop a cookie of more than 4 KB, and the sign-in with it.
    path = local_path(wanted.removeprefix(origin) if len(wanted) <= 2000 else "")
    passed_on = {name: text for name in ("prompt", "login_hint") if (text := request.query_params.get(name))}
    url, pending_login = await _flow(services).begin(origin=origin, path=path, passed_on=passed_on, now=utcnow())
    cookie = set_cookie(settings, pending_login, int(LOGIN_TTL.total_seconds()), LOGIN_SUFFIX)
    return RedirectResponse(url, 303, {**NO_STORE, "Set-Cookie": cookie})


@router.get("/callback", include_in_schema=False, dependencies=[Depends(_origin_from_state)])
@RouteLimit(settings.limit_login_ip)
async def callback(request: Request, services: ServicesDep) -> Response:
    """Receive the provider's response and start a session with a cookie, as the sign-in form does."""
    flow, query, now = _flow(services), request.query_params, utcnow()
    request.state.set_cookie = set_cookie(settings, "", 0, LOGIN_SUFFIX)  # even if this fails: it is valid once
    pending_login = request.cookies.get(cookie_name(settings, LOGIN_SUFFIX), "")
    login = flow.resume(pending_login, login_state=query.get("state", ""), now=now)
    claims, access_token = await flow.finish(login, query, now)
    caller = await caller_of(services.database, flow.provider, access_token, claims)

    device = device_of(request, {"client_id": "browser"})
    sign_in = SignIn(caller.user_id, caller.session.auth_epoch, device, method="provider", in_cookie=True)
    pair = await services.database.write(request, services.authorization_server.start_session, sign_in, now)
    await end_browser_session(request, services)
    headers = {**NO_STORE, "Set-Cookie": set_cookie(settings, pair.access_token, pair.expires_in)}
    return RedirectResponse(request.state.pages + login.path, 303, headers)


def _flow(services: Services) -> LoginFlow:
    # main.py serves these routes only if there is a provider.
    return LoginFlow(cast("Provider", services.provider), services.signers.sign_in, settings)

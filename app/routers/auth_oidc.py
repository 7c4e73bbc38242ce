"""Signing in to the pages at the identity provider: there and back. A person's browser comes here, never a program:
what goes wrong is told by a page (app/http/error_handlers.py)."""

from typing import cast

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse

from app.core.settings import get_settings
from app.dependencies import ServicesDep
from app.http.cookies import cookie_name, set_cookie
from app.http.error_handlers import NO_STORE
from app.http.rate_limit import limited
from app.http.routing import Router
from app.models.base import utcnow
from app.oauth2.authorization_server import SignIn
from app.oidc.accounts import caller_of
from app.oidc.login import HANDSHAKE_TTL, CodeFlow, local_path
from app.services import Services
from app.sign_in import device_of, end_browser_session

router = Router("/api/auth/oidc")
settings = get_settings()
HANDSHAKE = "-sign-in"  # of the cookie's name, behind that of the session's
MAX_NEXT = 1000  # characters: the cookie has to fit into what browsers keep


async def _remember_asker(request: Request) -> None:
    """Whose page is asking, before anything may be refused. An origin is taken only while it is in CORS_ORIGINS."""
    wanted = request.query_params.get("next", "")
    request.state.pages = next((origin for origin in settings.cors_origins if wanted.startswith(f"{origin}/")), "")


async def _remember_asked(request: Request, services: ServicesDep) -> None:
    """The same on the way back."""
    origin = _flow(services).origin_of(request.query_params.get("state", ""))
    request.state.pages = origin if origin in settings.cors_origins else ""


@router.get("/login", include_in_schema=False, dependencies=[Depends(_remember_asker)])
@limited(settings.limit_login_ip, shared="sign-in")
async def login(request: Request, services: ServicesDep) -> Response:
    """To the provider. `next` is where to go afterwards: a path, or a page of an origin in CORS_ORIGINS."""
    wanted = request.query_params.get("next", "")
    wanted = wanted if len(wanted) <= MAX_NEXT else ""
    origin = request.state.pages
    address, kept = await _flow(services).begin(origin, local_path(wanted.removeprefix(origin)), utcnow())
    cookie = set_cookie(settings, kept, int(HANDSHAKE_TTL.total_seconds()), HANDSHAKE)
    return RedirectResponse(address, 303, {**NO_STORE, "Set-Cookie": cookie})


@router.get("/callback", include_in_schema=False, dependencies=[Depends(_remember_asked)])
@limited(settings.limit_login_ip)
async def callback(request: Request, services: ServicesDep) -> Response:
    """And back: a session with a cookie begins, as by the form for local accounts."""
    flow, answer, now = _flow(services), request.query_params, utcnow()
    request.state.set_cookie = set_cookie(settings, "", 0, HANDSHAKE)  # with whatever follows: it is good once
    kept = request.cookies.get(cookie_name(settings, HANDSHAKE), "")
    handshake = flow.resume(kept, answer.get("state", ""), now)
    person = await flow.redeem(handshake, answer, now)
    role_map = settings.oidc_role_map if person.tells_roles else ()
    caller = await caller_of(services.database, flow.provider, person.access_token, person.claims, role_map)

    device = device_of(request, {"client_id": "browser"})
    sign_in = SignIn(caller.user_id, caller.session.user_epoch, device)
    start_session = services.authorization_server.start_cookie_session
    cookie = await services.database.write(request, start_session, sign_in, now)
    await end_browser_session(request, services)
    headers = {**NO_STORE, "Set-Cookie": set_cookie(settings, cookie.token, cookie.max_age)}
    return RedirectResponse(request.state.pages + handshake.path, 303, headers)


def _flow(services: Services) -> CodeFlow:
    return cast("CodeFlow", services.code_flow)  # without one main.py does not serve these routes

"""Signing browsers in and out: the access token is in a cookie that scripts cannot read."""

from typing import Any

from fastapi import Request, Response

from app.authentication import send_cookie
from app.core.errors import BadRequest, ForeignOrigin, InvalidCredentials
from app.core.oauth_errors import InvalidGrant, OAuthError
from app.core.settings import get_settings
from app.dependencies import ServicesDep
from app.http.cookies import require_own_origin
from app.http.openapi import form_body, problems
from app.http.rate_limit import RouteLimit
from app.http.routing import Router
from app.oauth2.requests import CookieForm
from app.sign_in import end_browser_session, oauth_form, password_grant

router = Router(prefix="/api/auth/cookie", tags=["auth"])
local_accounts = Router(prefix="/api/auth/cookie", tags=["auth"])
settings = get_settings()
# With PASSWORD_GRANT=off, only our own pages may sign in here.
BY_PASSWORD = "password" in settings.grant_types
NO_CONTENT: dict[str, Any] = {"status_code": 204, "response_class": Response}  # without a content type
FORM, REFUSALS = form_body(CookieForm), problems(BadRequest, InvalidCredentials, ForeignOrigin)


@local_accounts.post("/login", **NO_CONTENT, openapi_extra=FORM, responses=REFUSALS, include_in_schema=BY_PASSWORD)
@RouteLimit(settings.limit_login_ip, scope="sign-in")
async def cookie_login(request: Request, response: Response, services: ServicesDep) -> None:
    """Sign in as at the token endpoint, with the token in an HttpOnly cookie instead of the response.

    The cookie is renewed while it is used. Only pages of PUBLIC_URL and of CORS_ORIGINS may request it; outside
    production, also those of the request's own origin. The browser's previous session is revoked.
    """
    require_own_origin(request, settings, allow_cors_origins=BY_PASSWORD)
    try:
        form = await oauth_form(request, response)
        own = {name: value for name, value in form.items() if name in CookieForm.model_fields}
        pair = await password_grant(request, {**own, "client_id": "browser"}, services, in_cookie=True)
    except InvalidGrant:
        raise InvalidCredentials from None
    except OAuthError as error:  # not an OAuth endpoint: its errors are problem documents
        raise BadRequest(error.detail) from None
    await end_browser_session(request, services)
    send_cookie(request, pair.access_token, pair.expires_in)


@router.post("/logout", **NO_CONTENT, responses=problems(ForeignOrigin))
async def cookie_logout(request: Request, services: ServicesDep) -> None:
    """Sign this browser out at once. Without a valid cookie there is nothing to do."""
    require_own_origin(request, settings)
    await end_browser_session(request, services)
    send_cookie(request, "", 0)

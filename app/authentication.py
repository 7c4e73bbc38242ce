"""Authentication: the access token of a request or socket, from its header or cookie, becomes a Caller."""

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security import OAuth2, SecurityScopes
from starlette.requests import HTTPConnection

from app.core.errors import InvalidToken, Unauthenticated, found
from app.core.logs import actor
from app.core.scopes import SCOPES
from app.core.settings import get_settings
from app.http.cookies import SAFE_METHODS, cookie_token, require_own_origin, set_cookie
from app.models.base import utcnow
from app.oauth2.refresh_tokens import SESSION_QUERY, snapshot_of
from app.oauth2.resource_server import Caller
from app.oidc import accounts
from app.services import services_of

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)


# ---- The credentials that a request presents ----


class StrictBearer(OAuth2):
    """Reads the access token from exactly one `Authorization: Bearer <token>` (RFC 6750 section 2.1), never from the
    query or a form.

    Without the header, the browser's cookie is used. With it, valid or not, the cookie is ignored.
    """

    async def __call__(self, request: HTTPConnection) -> str:
        if headers := request.headers.getlist("authorization"):
            if not headers[0].lower().startswith("bearer"):
                raise Unauthenticated
            match = _BEARER.fullmatch(headers[0].strip())
            if len(headers) > 1 or match is None:
                raise InvalidToken
            return match[1]
        services = services_of(request)
        token = found(cookie_token(request, services.settings), Unauthenticated)
        if request.scope.get("method") not in SAFE_METHODS:
            require_own_origin(request, services.settings)
        if services.provider is not None and services.provider.issued(token):
            raise InvalidToken  # a browser's session has a token of ours
        return token


def send_cookie(connection: HTTPConnection, token: str, max_age: int) -> None:
    """Add Set-Cookie to the response, even to an error: the change behind it is committed (app/http/middleware.py)."""
    connection.state.set_cookie = set_cookie(services_of(connection).settings, token, max_age)


# The OAuth flows of the OpenAPI document, by which Swagger UI signs in.
_shared_flow = {"tokenUrl": "/api/auth/token", "refreshUrl": "/api/auth/token", "scopes": SCOPES}
_flows = {"authorizationCode": {"authorizationUrl": "/authorize", **_shared_flow}}
if get_settings().docs_grant == "password":
    _flows = {"password": _shared_flow}
bearer = StrictBearer(flows=_flows, scheme_name="muster", description="If you select no scope, you get all of yours.")
if get_settings().docs_grant is None:
    bearer.model = HTTPBearer(bearerFormat="JWT", description=f"Paste an access token of {get_settings().oidc_issuer}.")


# ---- Dependencies: the authenticated caller ----


async def current_user(request: Request, required: SecurityScopes, token: Annotated[str, Depends(bearer)]) -> Caller:
    """The caller, authenticated before the route's own session begins."""
    return await authenticate(request, token, required.scopes)


# ---- Authentication ----


async def authenticate(connection: HTTPConnection, token: str, scopes: Sequence[str]) -> Caller:
    """Authenticate a request or socket. Raises InsufficientScope if the caller lacks one of the scopes."""
    caller = await _verify(connection, token)
    connection.state.user_id, connection.state.session_id = caller.user_id, caller.session_id
    connection.state.scopes = caller.scopes
    actor.set(caller.user_id)
    caller.require(scopes)
    return caller


async def _verify(connection: HTTPConnection, token: str) -> Caller:
    """The caller behind a token of ours or of the identity provider, which is asked while no session is open."""
    services, now = services_of(connection), utcnow()
    server, database, provider = services.authorization_server, services.database, services.provider
    if provider is not None and provider.issued(token):
        return await accounts.caller_of(database, provider, token, await provider.verify(token, now))
    claims = services.signers.access.verify(token, now)
    rows = await database.authentication_reader.all(SESSION_QUERY, {"id": claims.session_id})
    caller = server.caller(claims, snapshot_of(rows), now)
    if caller.needs_confirmation:
        # Committed before the route runs, so that a later 4xx cannot roll it back.
        await database.write(None, server.confirm_use, caller, now)
    if caller.is_cookie_renewal_due(now):
        pair = await database.write(None, server.renew_cookie, caller, now)
        send_cookie(connection, pair.access_token, pair.expires_in)
    return caller

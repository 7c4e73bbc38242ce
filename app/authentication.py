"""What routes ask for first: who calls, and with which scope."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from sqlmodel import Session
from starlette.requests import HTTPConnection

from app.accounts.users import Credentials, credentials_by_id
from app.chat.hub import SCOPE as CHAT
from app.core.concurrency import in_thread
from app.core.database import Side
from app.core.errors import ForeignOrigin, InsufficientScope, InvalidToken, Unauthenticated
from app.core.scopes import SCOPES
from app.http.cookies import cookie_token, origin_allowed, set_cookie
from app.http.rate_limit import client_address
from app.models.base import utcnow
from app.oauth2.access_tokens import InvalidAccessToken
from app.oauth2.authorization_server import Caller, is_cookie_due, is_unsettled
from app.oidc import accounts
from app.services import SAFE_METHODS, SessionDep, services_of, side_for

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)


class StrictBearer(OAuth2PasswordBearer):
    """Exactly one `Authorization: Bearer <token>` (RFC 6750 section 2.1), never the query or a form. Without the
    header the cookie's; a header, good or bad, never falls back to it."""

    async def __call__(self, request: HTTPConnection) -> str | Caller:  # type: ignore[override]  # what `presented` says
        headers = request.headers.getlist("authorization")
        if not headers:
            return _cookie(request)
        if not headers[0].lower().startswith("bearer"):
            raise Unauthenticated
        found = _BEARER.fullmatch(headers[0].strip())
        if len(headers) > 1 or found is None:
            raise InvalidToken
        return await presented(request, found[1])


async def presented(connection: HTTPConnection, token: str) -> str | Caller:
    """The token, if it is one of ours to look up; else the identity provider's caller, who is known already: nobody
    waits for the provider with a session."""
    services = services_of(connection)
    if services.provider is None or not services.provider.issued(token):
        return token
    try:
        claims = await services.provider.verify(token, utcnow())
    except InvalidAccessToken:
        raise InvalidToken from None
    return await accounts.caller_of(
        services.database, services.provider, token, claims, services.settings.oidc_role_map
    )


def _cookie(connection: HTTPConnection) -> str:
    token = cookie_token(connection, services_of(connection).settings)
    if token is None:
        raise Unauthenticated
    if connection.scope.get("method") not in SAFE_METHODS:
        require_own_origin(connection)
    connection.state.by_cookie = True
    return token


def require_own_origin(connection: HTTPConnection) -> None:
    """Raise ForeignOrigin for what another site's page may have sent with its visitor's cookie."""
    if not origin_allowed(connection, services_of(connection).settings):
        raise ForeignOrigin


def is_by_cookie(connection: HTTPConnection) -> bool:
    return getattr(connection.state, "by_cookie", False)


def give_cookie(connection: HTTPConnection, token: str, max_age: int) -> None:
    """Set-Cookie with whatever the answer will be (app/http/middleware.py): the change is committed."""
    connection.state.set_cookie = set_cookie(services_of(connection).settings, token, max_age)


bearer = StrictBearer(
    tokenUrl="/api/auth/token",
    refreshUrl="/api/auth/token",
    scopes=SCOPES,
    scheme_name="muster",
    description="Sign in with e-mail and password; leave the client fields empty. No scope ticked means all of yours.",
)


Presented = Annotated[str | Caller, Depends(bearer)]


async def current_user(request: Request, wanted: SecurityScopes, token: Presented, session: SessionDep) -> Caller:
    return await _authenticate(request, side_for(request), session, token, wanted.scopes)


async def current_caller(request: Request, wanted: SecurityScopes, token: Presented) -> Caller:
    """For routes that take long: the caller, authenticated in a session that is closed again."""
    database = services_of(request).database
    # Without the request: to ask whether its client has gone would swallow the body, which is still to be read.
    async with database.session_scope(database.read_side) as session:
        return await _authenticate(request, database.read_side, session, token, wanted.scopes)


async def current_chatter(connection: HTTPConnection, token: str | Caller) -> Caller:
    """The same for a socket, in one of the chat's own sessions."""
    database = services_of(connection).database
    async with database.session_scope(database.chat_read_side) as session:
        return await _authenticate(connection, database.chat_read_side, session, token, [CHAT])


async def current_credentials(request: Request, wanted: SecurityScopes, token: Presented) -> "SignedIn":
    """For routes that hash: the caller and what to check the password against, in a session that is closed again."""
    database = services_of(request).database
    async with database.session_scope(database.read_side, request) as session:
        caller = await _authenticate(request, database.read_side, session, token, wanted.scopes)
        account = await in_thread(credentials_by_id, session, caller.user_id)
    if account is None or account.auth_epoch != caller.session.auth_epoch:
        raise InvalidToken
    return SignedIn(caller, account, client_address(request))


async def _authenticate(
    connection: HTTPConnection, side: Side, session: Session, token: str | Caller, wanted: list[str]
) -> Caller:
    caller = token if isinstance(token, Caller) else await _of_session(connection, side, session, token)
    connection.state.user_id, connection.state.session_id = caller.user_id, caller.session_id
    for scope in wanted:
        if scope not in caller.scopes:
            raise InsufficientScope(scope)
    return caller


async def _of_session(connection: HTTPConnection, side: Side, session: Session, token: str) -> Caller:
    services = services_of(connection)
    now = utcnow()
    caller = await in_thread(services.authorization_server.authenticate, session, token, now)
    if is_unsettled(caller):
        # Before the route runs and committed at once: a later 4xx must not lose it.
        if side.commits:
            await in_thread(services.authorization_server.settle, session, caller, now)
        else:
            async with services.database.write_beside_read() as writer:
                await in_thread(services.authorization_server.settle, writer, caller, now)
    if is_by_cookie(connection) and is_cookie_due(caller, now):
        await _renew_cookie(connection, side, session, caller, now)
    return caller


async def _renew_cookie(
    connection: HTTPConnection, side: Side, session: Session, caller: Caller, now: datetime
) -> None:
    """Committed before the route runs, too."""
    services = services_of(connection)
    if side.commits:
        cookie = await in_thread(services.authorization_server.renew_cookie, session, caller, now)
        await in_thread(session.commit)
    else:
        async with services.database.write_beside_read() as writer:
            cookie = await in_thread(services.authorization_server.renew_cookie, writer, caller, now)
    give_cookie(connection, cookie.token, cookie.max_age)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A caller who is about to prove the password once more."""

    caller: Caller
    account: Credentials
    address: str

"""What the ways to sign in share: the OAuth form, the password grant (RFC 6749 section 4.3), a browser's session."""

from base64 import b64decode
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from sqlmodel import Session

from app.accounts import users
from app.core import metrics
from app.core.concurrency import in_thread
from app.core.errors import InvalidClient, InvalidGrant, InvalidRequest
from app.http.cookies import cookie_token
from app.http.rate_limit import client_address
from app.models.base import utcnow
from app.models.refresh_token import device_label, printable
from app.models.types import email_address
from app.oauth2.authorization_server import Device
from app.oauth2.requests import PARAMETERS, parse_form, parse_scope, scope_at_login
from app.services import Services

Started = TypeVar("Started")


async def oauth_form(request: Request) -> dict[str, str]:
    """The parameters of an OAuth request, each once and not empty. What is wrong is RFC 6749's error, never a 422."""
    _refuse_client_authentication(request.headers.get("authorization"))
    if PARAMETERS.intersection(request.query_params):
        raise InvalidRequest("Parameters belong in the body, never in the URL.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise InvalidRequest("The body must be application/x-www-form-urlencoded.")
    form = parse_form(await request.body())
    # The grace of a refresh counts from here: after the body, which a client could hold back for as long as it likes,
    # and before the wait for a slot, which is ours.
    request.state.arrived = utcnow()
    request.state.grant_type = form.get("grant_type")
    return form


def _refuse_client_authentication(header: str | None) -> None:
    """There is no client registry. Basic with an empty id, which Swagger UI sends, is no client at all."""
    scheme, _, credentials = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return
    try:
        client_id = b64decode(credentials, validate=True).decode().partition(":")[0]
    except ValueError:
        raise InvalidClient from None
    if client_id:
        raise InvalidClient


OAuthForm = Annotated[dict[str, str], Depends(oauth_form)]


async def password_grant(
    request: Request, form: dict[str, str], services: Services, start_session: Callable[..., Started]
) -> Started:
    """RFC 6749 section 4.3; docs/decisions/0001-password-grant.md says why. What `start_session` makes is the answer:
    the server's own method gives a pair of tokens, `start_cookie_session` a browser's cookie."""
    if "username" not in form or "password" not in form:
        raise InvalidRequest("username and password are needed.")
    if "scope" in form:
        parse_scope(form["scope"])
    device = device_of(request, form)
    email = _as_email(form["username"])
    await in_thread(services.account_limits.attempt, email, device.ip)
    account = await services.database.read(request, users.credentials_by_email, email)
    matches, stronger = await services.password_hasher.verify(
        form["password"], account.password_hash if account else None
    )
    if account is None or not matches or not account.is_active:
        metrics.count("logins", result="refused")
        await in_thread(services.account_limits.failed, email)
        raise InvalidGrant
    scope = scope_at_login(form.get("scope"), account.role_scopes)

    def sign_in(session: Session) -> Started:
        if stronger:
            users.store_stronger_hash(session, account, stronger)
        return start_session(
            session,
            user_id=account.user_id,
            auth_epoch=account.auth_epoch,
            device=device,
            scope=scope,
            now=utcnow(),
        )

    started = await services.database.write(request, sign_in)
    await in_thread(services.account_limits.succeeded, email, device.ip)
    metrics.count("logins", result="ok")
    return started


def device_of(request: Request, form: dict[str, str]) -> Device:
    user_agent = printable(request.headers.get("user-agent", ""), 255)
    client_id = form.get("client_id", "app")
    if len(client_id) > 100 or client_id != printable(client_id, 100):
        raise InvalidRequest("client_id is longer than 100 characters or not printable.")
    label = printable(form.get("device", ""), 100) or device_label(user_agent)
    return Device(client_id=client_id, device=label, ip=client_address(request), user_agent=user_agent)


def _as_email(username: str) -> str:
    """What is no address is looked up all the same: it costs the time of an unknown one."""
    try:
        return email_address(username)
    except ValueError:
        return username


async def end_browser_session(request: Request, services: Services) -> None:
    """That of the cookie which the browser sent: the answer takes it away, and nobody could sign it out any more."""
    token = cookie_token(request, services.settings)
    if token:
        await services.database.write(request, services.authorization_server.revoke, token, utcnow())

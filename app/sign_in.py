"""Signing in over HTTP: OAuth form parameters, the password grant (RFC 6749 section 4.3), and browser sessions."""

import re
from base64 import b64decode
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request, Response
from sqlmodel import Session

from app.accounts.users import find_user_by_email, upgrade_hash
from app.core import metrics
from app.core.addresses import network, networks
from app.core.concurrency import in_thread
from app.core.errors import TooManyRequests
from app.core.oauth_errors import InvalidClient, InvalidGrant, InvalidRequest
from app.http.cookies import cookie_token
from app.http.error_handlers import NO_STORE
from app.http.rate_limit import client_address
from app.models.audit import record
from app.models.base import utcnow
from app.models.refresh_token import MAX_LABEL, MAX_USER_AGENT, TokenPair, without_links
from app.models.types import CONTROLS, email_address
from app.models.user import User
from app.oauth2.refresh_tokens import Device, SignIn, live_addresses
from app.oauth2.requests import PARAMETERS, parse_form, parse_scope, scope_at_login
from app.services import Services

_SYSTEMS = ("iPhone", "iPad", "Android", "Windows", "Mac OS X", "Linux")
_BROWSERS = (("Edg", "Edge"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"))
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
_UNPRINTABLE = re.compile(rf"[{CONTROLS}\ud800-\udfff]")


async def oauth_form(request: Request, response: Response) -> dict[str, str]:
    """The parameters of an OAuth request, each sent once and not empty. Mistakes are RFC 6749's errors, never a 422.

    No cache may store the response (section 5.1).
    """
    response.headers.update(NO_STORE)
    _refuse_client_authentication(request.headers.get("authorization"))
    if PARAMETERS.intersection(request.query_params):
        raise InvalidRequest("Parameters belong in the body, never in the URL.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise InvalidRequest("The body must be application/x-www-form-urlencoded.")
    form = parse_form(await request.body())
    # The grace period of a refresh is measured here: after the body, which the client could delay at will, has arrived,
    # and before the wait for a slot, which is the server's fault.
    request.state.arrived = utcnow()
    request.state.is_password_grant = form.get("grant_type") == "password"
    return form


def _refuse_client_authentication(header: str | None) -> None:
    """Raise InvalidClient for HTTP Basic: all clients are public. Swagger UI sends Basic with an empty id, which
    names no client and is accepted."""
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


def require(form: dict[str, str], *names: str) -> None:
    """Raise InvalidRequest for a parameter that is missing, or empty."""
    if missing := [name for name in names if name not in form]:
        raise InvalidRequest(f"{missing[0]} is missing.")


async def password_grant(request: Request, form: dict[str, str], services: Services, *, in_cookie: bool) -> TokenPair:
    """Sign in with a password (RFC 6749 section 4.3, docs/decisions/0001-password-grant.md)."""
    require(form, "username", "password")
    if "scope" in form:
        parse_scope(form["scope"])
    try:
        email = email_address(form["username"])
    except ValueError:
        email = form["username"]  # looked up too, so that an invalid address takes as long as an unknown one
    try:
        return await _verify_and_start(request, form, email, services, in_cookie=in_cookie)
    except (InvalidGrant, TooManyRequests) as refusal:
        reason = "locked" if isinstance(refusal, TooManyRequests) else "password"
        await in_thread(note_refusal, services, email=email, reason=reason)
        raise


async def _verify_and_start(
    request: Request, form: dict[str, str], email: str, services: Services, *, in_cookie: bool
) -> TokenPair:
    device = device_of(request, form)
    await in_thread(services.account_limits.count_attempt, email, device.ip)
    user, addresses = await services.database.read(request, _find_account, email)
    if network(device.ip) not in map(network, addresses):  # the owner is not locked out where they have a session
        await in_thread(services.account_limits.check_ceiling, email)
    stored_hash = user.password_hash if user else None
    parties = parties_of(request, email)
    matches, stronger_hash = await services.password_hasher.verify(form["password"], stored_hash, parties)
    if user is None or not matches or not user.is_active:
        metrics.count("logins", result="refused")
        await in_thread(services.account_limits.count_failure, email)
        raise InvalidGrant
    scope = scope_at_login(form.get("scope"), user.role.scopes)

    sign_in = SignIn(user.id, user.auth_epoch, device, scope, "cookie" if in_cookie else "password", in_cookie)

    def start(session: Session) -> TokenPair:
        if stronger_hash:
            upgrade_hash(session, user, stronger_hash)
        return services.authorization_server.start_session(session, sign_in, utcnow())

    pair = await services.database.write(request, start)
    await in_thread(services.account_limits.forget_attempts, email, device.ip)
    metrics.count("logins", result="ok")
    return pair


def parties_of(request: Request, account: str) -> tuple[str, ...]:
    """The parties whose shares of PasswordHasher's queue a request uses: its networks, and `account`. A sign-in passes
    the e-mail address, whose share strangers can use up; a route that knows the owner passes the account's id."""
    return *networks(client_address(request)), account


def note_refusal(services: Services, *, email: str, reason: str) -> None:
    """Record that an account's password was refused, at most once an hour for each reason. For worker threads only.

    The response does not wait for it, since a known address would then take longer than an unknown one.
    """
    if services.account_limits.count_new_refusal(email, reason):
        services.database.write_later(_add_refusal, email=email, reason=reason)


def _add_refusal(session: Session, *, email: str, reason: str) -> None:
    if user := find_user_by_email(session, email):
        record(session, "sign-in-refused", user_id=user.id, reason=reason)


def _find_account(session: Session, email: str) -> tuple[User | None, Sequence[str]]:
    """The account and the addresses of its live sessions. Both are looked up for unknown accounts too."""
    return find_user_by_email(session, email), live_addresses(session, email, utcnow())


# ---- Devices ----


def device_of(request: Request, form: dict[str, str]) -> Device:
    """The client, as the list of sessions describes it."""
    user_agent = _printable(request.headers.get("user-agent", ""), MAX_USER_AGENT)
    client_id = form.get("client_id", "app")
    if client_id != _printable(client_id, MAX_LABEL):
        raise InvalidRequest(f"client_id is longer than {MAX_LABEL} characters or not printable.")
    names = (form.get("device", ""), _device_label(user_agent), "unknown device")
    label = next(filter(None, (without_links(_printable(name, MAX_LABEL)) for name in names)))
    return Device(client_id=client_id, device=label, ip=client_address(request), user_agent=user_agent)


def _device_label(user_agent: str) -> str:
    """A label that a person recognizes, such as "Chrome on Android" or "okhttp"; empty for an empty header."""
    system = next((name for name in _SYSTEMS if name in user_agent), None)
    browser = next((label for mark, label in _BROWSERS if f"{mark}/" in user_agent), None)
    if browser and system:
        return f"{browser} on {system}"
    return user_agent.partition("/")[0]


def _printable(text: str, length: int) -> str:
    """`text` on one line and at most `length` characters, fit for a row, a page and a log line."""
    return _UNPRINTABLE.sub("", text).strip()[:length]


# ---- Browsers ----


def local_path(path: str, otherwise: str = "/operations") -> str:
    """`path` if it stays on this host, else `otherwise`. Anybody can forge a link that says where to go next."""
    return path if _LOCAL_PATH.fullmatch(path) else otherwise


async def end_browser_session(request: Request, services: Services) -> None:
    """Revoke the session of the browser's cookie, which nobody can do after the response has replaced the cookie."""
    if token := cookie_token(request, services.settings):
        await services.database.write(request, services.authorization_server.revoke, token)

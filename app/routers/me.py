"""One's own account: its name, password and address, and its sessions, which are the signed-in devices."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from fastapi import Request, Response
from pydantic import MISSING
from sqlmodel import Session, col

from app.accounts import users
from app.authentication import SignedIn, give_cookie, is_by_cookie
from app.core.concurrency import in_thread
from app.core.errors import (
    Conflict,
    Invalid,
    InvalidToken,
    LastAdmin,
    PasswordElsewhere,
    SessionNotFound,
    SignInAgain,
    WrongPassword,
)
from app.dependencies import CurrentCredentials, CurrentUser, PageDep, ServicesDep, SessionDep, page_of_sessions
from app.http.openapi import problems
from app.http.routing import Router
from app.models.base import utcnow
from app.models.refresh_token import RefreshToken, SessionPublic, TokenPair
from app.models.user import Confirmation, EmailChange, PasswordChange, UserPublic, UserUpdate
from app.oauth2.access_tokens import from_timestamp
from app.oauth2.authorization_server import Caller, Device
from app.oauth2.refresh_tokens import revoke_sessions
from app.services import Services

router = Router("/api/users/me")
local_accounts = Router("/api/users/me")

SIGN_IN_AGE = timedelta(minutes=5)
Started = TypeVar("Started")


# ---- One's own account ----


@router.get("", tags=["account"], operation_id="readMe")
async def read_me(me: CurrentUser) -> UserPublic:
    """Your account, its role and what the role allows."""
    return users.public_user(me.session)


@router.patch("", tags=["account"], operation_id="updateMe")
def update_me(body: UserUpdate, me: CurrentUser, session: SessionDep) -> UserPublic:
    """Change your name. What is left out stays; null takes the name away."""
    return users.update_user(session, me.user_id, body.model_dump())


@router.delete(
    "",
    status_code=204,
    tags=["account"],
    operation_id="deleteMe",
    responses=problems(WrongPassword, SignInAgain, LastAdmin),
)
async def delete_me(request: Request, body: Confirmation, me: CurrentCredentials, services: ServicesDep) -> None:
    """Delete your account and all that belongs to it. Cannot be undone. If its password is kept at the identity
    provider, leave it out here, and sign in there at most five minutes before."""
    if me.account.password_hash is None:
        _require_new_sign_in(me.caller)
    elif body.current_password is MISSING:
        raise Invalid.at("body", "current_password", message="The current password is needed.", kind="missing")
    else:
        await _prove(services, me, body.current_password)
    if not await services.database.write(request, users.delete_account, me.account):
        raise Conflict
    if is_by_cookie(request):
        give_cookie(request, "", 0)


@local_accounts.put(
    "/password",
    tags=["account"],
    operation_id="changePassword",
    response_model=TokenPair,
    responses=problems(WrongPassword, PasswordElsewhere, Conflict)
    | {204: {"description": "For a browser: a new cookie, and no tokens"}},
)
async def change_password(
    request: Request, body: PasswordChange, me: CurrentCredentials, services: ServicesDep
) -> TokenPair | Response:
    """Change your password. Ends every session, this one too, and answers with this device's new pair of tokens."""
    await _prove(services, me, body.current_password)
    await services.password_hasher.check_policy(
        body.new_password,
        min_length=services.settings.password_min_length,
        related=me.account.related_words,
        field="new_password",
    )
    password_hash = await services.password_hasher.hash(body.new_password)
    write, server = services.database.write, services.authorization_server
    if not is_by_cookie(request):
        return await write(request, _change_password, services, me, password_hash, server.start_session)
    cookie = await write(request, _change_password, services, me, password_hash, server.start_cookie_session)
    give_cookie(request, cookie.token, cookie.max_age)
    return Response(status_code=204)


def _change_password(
    session: Session, services: Services, me: SignedIn, password_hash: str, start_session: Callable[..., Started]
) -> Started:
    state, now = me.caller.session, utcnow()
    if not users.replace_password(session, me.account, password_hash, reason="password-changed", now=now):
        raise Conflict
    row = session.get_one(RefreshToken, state.id)
    if row.revoke_reason != "password-changed":  # this device was signed out while the password was being hashed
        raise InvalidToken
    services.jobs.mail(session, "password-changed", owner_id=state.user_id, to=me.account.email)
    device = Device(client_id=row.client_id, device=row.device, ip=me.address, user_agent=row.user_agent)
    return start_session(
        session,
        user_id=state.user_id,
        auth_epoch=me.account.auth_epoch + 1,
        device=device,
        scope=row.scope,
        now=now,
    )


@local_accounts.put(
    "/email",
    status_code=202,
    tags=["account"],
    operation_id="changeEmail",
    response_class=Response,
    responses=problems(WrongPassword, PasswordElsewhere, Conflict),
)
async def change_email(request: Request, body: EmailChange, me: CurrentCredentials, services: ServicesDep) -> Response:
    """Ask for another e-mail address. It takes effect by the link mailed there; the old address is told."""
    await _prove(services, me, body.current_password)
    await services.database.write(request, _change_email, services, me.account, body.email)
    return Response(status_code=202)


def _change_email(session: Session, services: Services, account: users.Credentials, new_email: str) -> None:
    if not users.request_email_change(session, account, new_email):
        raise Conflict
    services.jobs.mail(session, "email-change", owner_id=account.user_id)
    services.jobs.mail(session, "email-changing", owner_id=account.user_id, to=account.email)


async def _prove(services: Services, me: SignedIn, password: str) -> None:
    """The current password, counted like a sign-in: a stolen access token is no licence to guess."""
    if me.account.password_hash is None:
        raise PasswordElsewhere
    await in_thread(services.account_limits.attempt, me.account.email, me.address)
    matches, _ = await services.password_hasher.verify(password, me.account.password_hash)
    if not matches:
        await in_thread(services.account_limits.failed, me.account.email)
        raise WrongPassword
    await in_thread(services.account_limits.succeeded, me.account.email, me.address)


def _require_new_sign_in(caller: Caller) -> None:
    """What stands for the password where there is none: the person was at the provider's a moment ago."""
    if utcnow() - from_timestamp(caller.claims.auth_time) > SIGN_IN_AGE:
        raise SignInAgain


# ---- Sessions: the signed-in devices ----


@router.get("/sessions", tags=["sessions"], operation_id="listMySessions")
def list_my_sessions(me: CurrentUser, session: SessionDep, page: PageDep) -> list[SessionPublic]:
    """Your signed-in devices, the latest sign-in first."""
    return page_of_sessions(session, page, me.user_id, current=me.session_id)


@router.delete("/sessions", status_code=204, tags=["sessions"], operation_id="revokeMyOtherSessions")
def revoke_my_other_sessions(me: CurrentUser, session: SessionDep) -> None:
    """Sign out every other device, at once."""
    users.lock_user(session, me.user_id)
    others = (col(RefreshToken.user_id) == me.user_id, col(RefreshToken.id) != me.session_id)
    revoke_sessions(session, *others, reason="revoked-by-owner", now=utcnow())


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    tags=["sessions"],
    operation_id="revokeMySession",
    responses=problems(SessionNotFound),
)
def revoke_my_session(session_id: UUID, me: CurrentUser, session: SessionDep) -> None:
    """Sign out one device, at once."""
    one = (col(RefreshToken.user_id) == me.user_id, col(RefreshToken.id) == session_id)
    if revoke_sessions(session, *one, reason="revoked-by-owner", now=utcnow()) == 0:
        raise SessionNotFound

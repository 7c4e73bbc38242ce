"""The caller's own account (name, password, e-mail address) and its sessions, which are the signed-in devices."""

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import MISSING
from sqlmodel import Session, col

from app.accounts import users
from app.authentication import send_cookie
from app.core.concurrency import in_thread
from app.core.errors import AppError, Conflict, Invalid, InvalidToken, LastAdmin, SessionNotFound, found
from app.dependencies import CurrentUser, PageDep, ServicesDep, SessionDep, SessionId, page_of_sessions
from app.http.error_handlers import NO_STORE
from app.http.openapi import Responses, problems
from app.http.rate_limit import client_address
from app.http.routing import Router
from app.models.audit import record
from app.models.base import utcnow
from app.models.refresh_token import RefreshToken, SessionPublic, SessionUpdate, TokenPair
from app.models.user import AccountDeletion, EmailChange, PasswordChange, User, UserPublic, UserUpdate
from app.oauth2.refresh_tokens import Device, SignIn, live_sessions, revoke_sessions
from app.oauth2.resource_server import Caller
from app.services import Services
from app.sign_in import note_refusal, parties_of

router = Router(prefix="/api/users/me")
local_accounts = Router(prefix="/api/users/me")


class WrongPassword(AppError, status=403, title="The current password is wrong", field="current_password"):
    """The current password is wrong."""


class PasswordElsewhere(AppError, status=403, title="This account has no password here"):
    """The identity provider keeps the password and the e-mail address of this account. Change them there."""


class SignInAgain(AppError, status=403, title="Sign in again"):
    """This request needs a sign-in at the identity provider within the last five minutes."""


PASSWORD_PROBLEMS = problems(WrongPassword, PasswordElsewhere, Conflict)
NEW_COOKIE: Responses = {204: {"description": "For a browser: a new cookie instead of tokens"}}


# ---- One's own account ----


@router.get("", tags=["account"])
async def read_me(me: CurrentUser) -> UserPublic:
    """Your account, its role and the scopes of the role."""
    own = {"id": me.user_id, "scopes": me.session.role_scopes, "created_at": me.session.user_created_at}
    return UserPublic.model_validate(me.session, update=own)  # authentication has read all of it


@router.patch("", tags=["account"])
def update_me(body: UserUpdate, me: CurrentUser, session: SessionDep) -> UserPublic:
    """Change your name; null removes it."""
    user = users.get_user(session, me.user_id)
    user.sqlmodel_update(body.model_dump())
    session.add(user)
    return UserPublic.of(user)


@router.delete("", status_code=204, tags=["account"], responses=problems(WrongPassword, SignInAgain, LastAdmin))
async def delete_me(request: Request, body: AccountDeletion, me: CurrentUser, services: ServicesDep) -> None:
    """Delete your account and everything that belongs to it. This cannot be undone.

    If your account has no password here, leave `current_password` out and sign in at the identity provider at most five
    minutes before.
    """
    user = await _read_account(request, services, me)
    if user.password_hash is None:
        if utcnow().timestamp() - me.claims.auth_time > 5 * 60:  # seconds
            raise SignInAgain
    elif body.current_password is MISSING:
        raise Invalid.at("body", "current_password", message="The current password is required.", kind="missing")
    else:
        await _verify_password(request, services, user, body.current_password)
    await services.database.write(request, users.delete_account, user)
    if me.claims.in_cookie:
        send_cookie(request, "", 0)


@local_accounts.put("/password", tags=["account"], response_model=TokenPair, responses=PASSWORD_PROBLEMS | NEW_COOKIE)
async def change_password(request: Request, body: PasswordChange, me: CurrentUser, services: ServicesDep) -> Response:
    """Change your password. Revokes every session, this one too, and returns a new token pair for this device."""
    user = await _read_account(request, services, me)
    await _verify_password(request, services, user, body.current_password)
    hasher, parties = services.password_hasher, parties_of(request, str(user.id))
    password_hash = await hasher.hash_new(body.new_password, user, field="new_password", parties=parties)

    def change(session: Session) -> TokenPair:
        epoch = users.replace_password(session, user, password_hash, reason="password-changed")
        row = session.get_one(RefreshToken, me.session_id)
        if row.revoke_reason != "password-changed":  # this device was signed out while its new password was hashed
            raise InvalidToken
        services.jobs.mail(session, "password-changed", owner_id=user.id, to=user.email)
        device = Device(row.client_id, row.device, client_address(request), row.user_agent)
        sign_in = SignIn(user.id, epoch, device, row.scope, method=None, in_cookie=me.claims.in_cookie)
        return services.authorization_server.start_session(session, sign_in, utcnow())

    pair = await services.database.write(request, change)
    if me.claims.in_cookie:
        send_cookie(request, pair.access_token, pair.expires_in)
        return Response(status_code=204)
    return JSONResponse(pair.model_dump(), headers=NO_STORE)  # RFC 6749 section 5.1, as of every response with tokens


@local_accounts.put("/email", status_code=202, tags=["account"], response_class=Response, responses=PASSWORD_PROBLEMS)
async def change_email(request: Request, body: EmailChange, me: CurrentUser, services: ServicesDep) -> None:
    """Request a change of your e-mail address. The link mailed to the new one completes it; the old one is notified."""
    user = await _read_account(request, services, me)
    await _verify_password(request, services, user, body.current_password)

    def change(session: Session) -> None:
        users.request_email_change(session, user, body.email)
        services.jobs.mail(session, "email_change", owner_id=user.id)
        services.jobs.mail(session, "email-changing", owner_id=user.id, to=user.email)

    await services.database.write(request, change)


async def _read_account(request: Request, services: Services, me: Caller) -> User:
    """The caller's account. No session is open afterward, while a password is hashed, so it is changed only if nothing
    else has changed it since."""
    user = await services.database.read(request, users.find_user, me.user_id)
    if user is None or user.auth_epoch != me.session.auth_epoch:
        raise InvalidToken
    return user


async def _verify_password(request: Request, services: Services, user: User, password: str) -> None:
    """Verify the current password. Attempts are limited even with the right one: each costs as much as a sign-in."""
    password_hash = found(user.password_hash, PasswordElsewhere)
    await in_thread(services.account_limits.count_confirmation, user.id)
    matches, _ = await services.password_hasher.verify(password, password_hash, parties_of(request, str(user.id)))
    if not matches:
        await in_thread(services.account_limits.count_failure, user.email)
        await in_thread(note_refusal, services, email=user.email, reason="current-password")
        raise WrongPassword


# ---- Sessions: the signed-in devices ----


@router.get("/sessions", tags=["sessions"])
def list_my_sessions(me: CurrentUser, session: SessionDep, page: PageDep) -> list[SessionPublic]:
    """Your signed-in devices, latest sign-in first."""
    return page_of_sessions(session, page, me.user_id, current=me.session_id)


@router.delete("/sessions", status_code=204, tags=["sessions"])
def revoke_my_other_sessions(me: CurrentUser, session: SessionDep) -> None:
    """Sign out every other device, at once."""
    users.lock_user(session, me.user_id)
    others = (col(RefreshToken.user_id) == me.user_id, col(RefreshToken.id) != me.session_id)
    if count := revoke_sessions(session, *others, reason="revoked-by-owner"):
        record(session, "sessions-revoked", user_id=me.user_id, sessions=str(count))


@router.patch("/sessions/{session_id}", tags=["sessions"], responses=problems(SessionNotFound))
def rename_my_session(
    session_id: SessionId, body: SessionUpdate, me: CurrentUser, session: SessionDep
) -> SessionPublic:
    """Give a device another name. What a mail program would take for a link is removed from it."""
    one = live_sessions(me.user_id, utcnow()).where(RefreshToken.id == session_id)
    row = found(session.exec(one).one_or_none(), SessionNotFound)
    row.device = body.device
    return SessionPublic.of(row, current=me.session_id)


@router.delete("/sessions/{session_id}", status_code=204, tags=["sessions"], responses=problems(SessionNotFound))
def revoke_my_session(session_id: SessionId, me: CurrentUser, session: SessionDep) -> None:
    """Sign out one device, at once."""
    users.end_session(session, user_id=me.user_id, session_id=session_id, reason="revoked-by-owner")

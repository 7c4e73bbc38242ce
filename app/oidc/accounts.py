"""People whom the identity provider vouches for. Who somebody is, is the issuer and the subject, never an address: to
link by that would let whoever sets addresses at the provider into the accounts of others."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col

from app.accounts.users import find_role, lock_user, new_user
from app.core.database import Database
from app.core.errors import EmailMissing, InvalidToken, ProviderUnavailable
from app.core.logs import security_event
from app.core.scopes import USER
from app.models.user import Identity, User
from app.oauth2.access_tokens import from_timestamp
from app.oauth2.authorization_server import Caller
from app.oauth2.refresh_tokens import read_identity
from app.oidc.provider import Provider
from app.oidc.tokens import ForeignClaims, Profile

RoleMap = Sequence[tuple[str, str]]
_LASTING = (EmailMissing, IntegrityError, ProviderUnavailable)  # what the next seconds do not change


async def caller_of(
    database: Database, provider: Provider, token: str, claims: ForeignClaims, role_map: RoleMap
) -> Caller:
    """Who bears this token: with an account, made at the first sight, and the role that the provider gives. Both are
    committed here, before the route runs. The provider is asked between two sessions, never within one."""
    caller = await _recognised(database, claims)
    if caller is None:
        await _meet(database, provider, token, claims, role_map)
    elif is_role_due(caller, claims, role_map):
        await database.write(None, take_over_role, caller, claims, role_map)
    else:
        return caller
    caller = await _recognised(database, claims)
    if caller is None:  # deleted in between
        raise InvalidToken
    return caller


async def _meet(database: Database, provider: Provider, token: str, claims: ForeignClaims, role_map: RoleMap) -> None:
    """Once for all requests of a person that wait for it together. For some seconds, who was refused is refused again
    without asking: their requests take neither the provider's time nor the place of those who write."""
    sights, key = provider.first_sights, (claims.subject, claims.profile.email)
    if key not in sights:
        sights[key] = asyncio.create_task(_first_sight(database, provider, token, claims, role_map))
    try:
        await asyncio.shield(sights[key])
    except _LASTING:
        raise
    except Exception:
        sights.pop(key, None)
        raise
    sights.pop(key, None)


async def _first_sight(
    database: Database, provider: Provider, token: str, claims: ForeignClaims, role_map: RoleMap
) -> None:
    profile = await provider.profile(token, claims)
    try:
        await database.write(None, make_account, claims, profile, role_map)
    except IntegrityError:
        if await _recognised(database, claims) is None:
            raise  # the address is somebody else's; otherwise another process was first


async def _recognised(database: Database, claims: ForeignClaims) -> Caller | None:
    return await database.read(None, recognise, claims)


def recognise(session: Session, claims: ForeignClaims) -> Caller | None:
    """Who bears this token, from one query; None at the first sight of a person."""
    state = read_identity(session, claims.issuer, claims.subject)
    if state is None:
        return None
    if not state.is_active:
        raise InvalidToken
    access = replace(claims.access, subject=state.user_id, session_id=state.id)
    return Caller(state, access, state.scopes() & access.scope)


def is_role_due(caller: Caller, claims: ForeignClaims, role_map: RoleMap) -> bool:
    """Whether the token is newer than all whose roles were looked at: an older one brings no role back."""
    return bool(role_map) and from_timestamp(claims.access.issued_at) > caller.session.rotated_at


def take_over_role(session: Session, caller: Caller, claims: ForeignClaims, role_map: RoleMap) -> None:
    """With a role map the provider decides, also about the last admin."""
    user_id, issued_at = caller.user_id, from_timestamp(claims.access.issued_at)
    lock_user(session, user_id)
    this = (col(Identity.id) == caller.session_id, col(Identity.synced_at) < issued_at)
    if session.connection().execute(update(Identity).where(*this).values(synced_at=issued_at)).rowcount == 0:
        return
    role = _role(claims, role_map)
    role_id = find_role(session, role).id
    other = (col(User.id) == user_id, col(User.role_id) != role_id)
    if session.connection().execute(update(User).where(*other).values(role_id=role_id)).rowcount:
        security_event("role changed", user_id=user_id, role=role, by="the identity provider")


def make_account(session: Session, claims: ForeignClaims, profile: Profile, role_map: RoleMap) -> None:
    """An account without a password. A taken address, and a request that was first, are the unique constraints'."""
    if profile.email is None:
        raise EmailMissing
    user = new_user(
        session,
        email=profile.email,
        name=profile.name,
        password_hash=None,
        role=_role(claims, role_map),
        is_verified=profile.is_verified,
    )
    synced_at = from_timestamp(claims.access.issued_at)
    session.add(Identity(user_id=user.id, issuer=claims.issuer, subject=claims.subject, synced_at=synced_at))
    session.flush()
    security_event("new identity", user_id=user.id)


def _role(claims: ForeignClaims, role_map: RoleMap) -> str:
    return next((role for realm_role, role in role_map if realm_role in claims.realm_roles), USER)

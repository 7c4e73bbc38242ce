"""The accounts of people who sign in at the external provider.

Issuer and subject identify a person, never an address: linking by address would let whoever sets addresses at the
provider into other people's accounts.
"""

from collections.abc import Sequence

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, update

from app.accounts.users import create_user, free_address, get_role, lock_user
from app.core.database import Database
from app.core.errors import EmailMissing, InvalidToken, ProviderUnavailable
from app.core.scopes import USER
from app.models.audit import record
from app.models.user import Identity, User
from app.oauth2.access_tokens import from_timestamp
from app.oauth2.refresh_tokens import read_identity
from app.oauth2.resource_server import Caller
from app.oidc.provider import Provider
from app.oidc.tokens import Profile, ProviderClaims

RoleMap = Sequence[tuple[str, str]]


async def caller_of(
    database: Database, provider: Provider, token: str, claims: ProviderClaims, role_map: RoleMap
) -> Caller:
    """The caller behind a verified token of the provider. Creates the account at the first sign-in and applies role
    changes; both are committed before the route runs. The provider is asked between two sessions, never within one."""
    caller = await database.read(None, find_caller, claims)
    person = claims.subject, claims.profile
    refusal: Exception = InvalidToken()  # the account is deleted in between
    if caller is None:
        if refused := provider.refused.get(person):
            raise refused.with_traceback(None)
        try:
            profile = await provider.profile(token, claims)
            await database.write(None, create_account, claims, profile, role_map)
        except (EmailMissing, ProviderUnavailable, IntegrityError) as error:
            refusal = error  # unless another request was first
    elif is_role_due(caller, claims, role_map):
        await database.write(None, apply_role, caller, claims, role_map)
    else:
        return caller
    caller = await database.read(None, find_caller, claims)
    if caller is None:
        provider.refused[person] = refusal
        raise refusal
    return caller


def find_caller(session: Session, claims: ProviderClaims) -> Caller | None:
    """The caller with this identity, from one query; None before their first sign-in."""
    snapshot = read_identity(session, claims.issuer, claims.subject)
    if snapshot is None:
        return None
    if not snapshot.is_active:
        raise InvalidToken
    access = claims.access.model_copy(update={"subject": snapshot.user_id, "session_id": snapshot.id})
    return Caller(snapshot, access, snapshot.scopes() & access.scope)


def is_role_due(caller: Caller, claims: ProviderClaims, role_map: RoleMap) -> bool:
    """Whether the token is newer than every token whose roles were applied: an older one restores no role."""
    return bool(role_map) and from_timestamp(claims.access.issued_at) > caller.session.rotated_at


def apply_role(session: Session, caller: Caller, claims: ProviderClaims, role_map: RoleMap) -> None:
    """Set the role that the token names. With a role map the provider decides, even about the last admin."""
    issued_at = from_timestamp(claims.access.issued_at)
    user = lock_user(session, caller.user_id)
    older = (col(Identity.id) == caller.session_id, col(Identity.synced_at) < issued_at)
    if user is None or session.exec(update(Identity).where(*older).values(synced_at=issued_at)).rowcount == 0:
        return
    role = get_role(session, _role(claims, role_map))
    if user.role_id != role.id:
        user.role = role
        session.add(user)
        record(session, "role-changed", user_id=user.id, role=role.name, by="the identity provider")


def create_account(session: Session, claims: ProviderClaims, profile: Profile, role_map: RoleMap) -> None:
    """Insert an account without a password. Unique constraints report a taken address and a concurrent request.
    An address that the provider has verified is not taken by an account that never verified it."""
    if profile.email is None:
        raise EmailMissing
    if profile.is_verified:
        free_address(session, profile.email)
    user = User(email=profile.email, name=profile.name, is_verified=profile.is_verified)
    create_user(session, user, _role(claims, role_map))
    synced_at = from_timestamp(claims.access.issued_at)
    session.add(Identity(user_id=user.id, issuer=claims.issuer, subject=claims.subject, synced_at=synced_at))
    session.flush()
    record(session, "identity-added", user_id=user.id)


def _role(claims: ProviderClaims, role_map: RoleMap) -> str:
    return next((role for realm_role, role in role_map if realm_role in claims.realm_roles), USER)

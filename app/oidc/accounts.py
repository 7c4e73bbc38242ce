"""The accounts of people who sign in at the external provider.

Issuer and subject identify a person, never an address: linking by address would let whoever sets addresses at the
provider into other people's accounts.
"""

from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, update

from app.accounts.users import change_role, create_user, free_address, get_role, lock_user
from app.core.database import Database
from app.core.errors import EmailMissing, InvalidToken, ProviderUnavailable, found
from app.core.scopes import USER
from app.models.audit import record
from app.models.user import Identity, User
from app.oauth2.refresh_tokens import read_identity
from app.oauth2.resource_server import Caller
from app.oidc.provider import Provider
from app.oidc.tokens import Profile, ProviderClaims


async def caller_of(database: Database, provider: Provider, token: str, claims: ProviderClaims) -> Caller:
    """The caller behind a verified token of the provider. Creates the account at the first sign-in and applies role
    changes; both are committed before the route runs. The provider is asked between two sessions, never within one."""
    caller = await database.read(None, find_caller, claims)
    person, issued_at = (claims.subject, claims.profile), datetime.fromtimestamp(claims.access.issued_at, UTC)
    refusal: Exception = InvalidToken()  # the account is deleted in between
    if caller is None:
        if refused := provider.refused.get(person):
            raise refused.with_traceback(None)
        try:
            profile = await provider.profile(token, claims)
            await database.write(None, create_account, claims, profile, issued_at)
        except (EmailMissing, ProviderUnavailable, IntegrityError) as error:
            refusal = error  # unless another request was first
    elif claims.role and issued_at > caller.session.rotated_at:  # an older token restores no role
        await database.write(None, apply_role, caller, claims.role, issued_at)
    else:
        return caller
    caller = await database.read(None, find_caller, claims)
    if caller is None:
        provider.refused[person] = refusal
        raise refusal
    return caller


def find_caller(session: Session, claims: ProviderClaims) -> Caller | None:
    """The caller with this identity, from one query; None before their first sign-in."""
    snapshot = read_identity(session, issuer=claims.issuer, subject=claims.subject)
    if snapshot is None:
        return None
    if not snapshot.is_active:
        raise InvalidToken
    return Caller(snapshot, claims.access, snapshot.scopes().intersection(claims.access.scope.split()))


def apply_role(session: Session, caller: Caller, name: str, issued_at: datetime) -> None:
    """Set the role of a token, unless a newer one has set it. The provider decides, even about the last admin."""
    user = lock_user(session, caller.user_id)
    older = (col(Identity.id) == caller.session_id, col(Identity.synced_at) < issued_at)
    if user is not None and session.exec(update(Identity).where(*older).values(synced_at=issued_at)).rowcount == 1:
        change_role(session, user, get_role(session, name), by="the identity provider")


def create_account(session: Session, claims: ProviderClaims, profile: Profile, issued_at: datetime) -> None:
    """Insert an account without a password. Unique constraints report a taken address and a concurrent request.
    If the provider has verified the address, an account that never verified it loses it."""
    email = found(profile.email, EmailMissing)
    if profile.is_verified:
        free_address(session, email)
    user = User(email=email, name=profile.name, is_verified=profile.is_verified)
    create_user(session, user, claims.role or USER)
    session.add(Identity(user_id=user.id, issuer=claims.issuer, subject=claims.subject, synced_at=issued_at))
    record(session, "identity-added", user_id=user.id)

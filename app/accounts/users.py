"""Accounts: what is read to sign in, what a new password ends, and the admin who must stay."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, update
from sqlmodel import Session, col

from app.core.errors import LastAdmin, RolesMissing, UserNotFound
from app.core.scopes import ADMIN, USER
from app.models.refresh_token import RefreshToken
from app.models.user import Role, User, UserPublic
from app.oauth2.refresh_tokens import SessionSnapshot, revoke_sessions


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a password is checked against, and what a change is conditional on."""

    user_id: UUID
    email: str
    name: str | None
    password_hash: str | None
    auth_epoch: int
    is_active: bool
    is_verified: bool
    new_email: str | None
    role_scopes: list[str]

    @property
    def related_words(self) -> list[str]:
        """What a password must not be made of."""
        return [self.email, self.name or ""]


_CREDENTIALS = select(
    col(User.id),
    col(User.email),
    col(User.name),
    col(User.password_hash),
    col(User.auth_epoch),
    col(User.is_active),
    col(User.is_verified),
    col(User.new_email),
    col(Role.scopes),
).join(Role, col(Role.id) == col(User.role_id))


def credentials_by_email(session: Session, email: str) -> Credentials | None:
    return _credentials(session, col(User.email) == email)


def credentials_by_id(session: Session, user_id: UUID) -> Credentials | None:
    return _credentials(session, col(User.id) == user_id)


def _credentials(session: Session, condition: Any) -> Credentials | None:
    row = session.connection().execute(_CREDENTIALS.where(condition)).first()
    return Credentials(*row) if row else None


def new_user(
    session: Session,
    *,
    email: str,
    name: str | None,
    password_hash: str | None,
    role: str = USER,
    is_verified: bool = False,
) -> UserPublic:
    """Insert the account; a taken address is the unique constraint's to find."""
    found = find_role(session, role)
    user = User(email=email, name=name, password_hash=password_hash, role_id=found.id, is_verified=is_verified)
    session.add(user)
    session.flush()
    return UserPublic.model_validate(user, update={"role": role, "scopes": found.scopes})


def find_role(session: Session, name: str) -> Any:
    """The id and the scopes of a role, or RolesMissing."""
    found = session.connection().execute(select(col(Role.id), col(Role.scopes)).where(col(Role.name) == name)).first()
    if found is None:
        raise RolesMissing
    return found


def public_user(state: SessionSnapshot) -> UserPublic:
    """The caller's own account, from what authentication has read anyway."""
    return UserPublic.model_construct(
        id=state.user_id,
        email=state.email,
        name=state.name,
        role=state.role,
        scopes=state.role_scopes,
        is_active=state.is_active,
        is_verified=state.is_verified,
        created_at=state.user_created_at,
    )


_PUBLIC: Select[*tuple[Any, ...]] = select(
    col(User.id),
    col(User.email),
    col(User.name),
    col(Role.name).label("role"),
    col(Role.scopes),
    col(User.is_active),
    col(User.is_verified),
    col(User.created_at),
).join(Role, col(Role.id) == col(User.role_id))


def read_user(session: Session, user_id: UUID) -> UserPublic:
    """The account as it is shown, or UserNotFound."""
    row = session.connection().execute(_PUBLIC.where(col(User.id) == user_id)).first()
    if row is None:
        raise UserNotFound
    return UserPublic.model_validate(row._asdict())


def list_users(session: Session, *, after: UUID | None, limit: int) -> list[UserPublic]:
    """The oldest first: a version 7 UUID sorts by its time."""
    statement = _PUBLIC.order_by(col(User.id)).limit(limit)
    if after is not None:
        statement = statement.where(col(User.id) > after)
    return [UserPublic.model_validate(row._asdict()) for row in session.connection().execute(statement)]


def update_user(session: Session, user_id: UUID, changes: dict[str, Any]) -> UserPublic:
    """Set the columns in `changes` and nothing else."""
    if changes:
        session.connection().execute(update(User).where(col(User.id) == user_id).values(**changes))
    return read_user(session, user_id)


def request_email_change(session: Session, account: Credentials, new_email: str) -> bool:
    """Note the address that waits for its link; False when the account changed since it was read."""
    changed = session.connection().execute(update(User).where(_unchanged(account)).values(new_email=new_email))
    return changed.rowcount == 1


def store_stronger_hash(session: Session, account: Credentials, stronger: str) -> None:
    session.connection().execute(update(User).where(_unchanged(account)).values(password_hash=stronger))


def replace_password(
    session: Session, account: Credentials, password_hash: str, *, reason: str, now: datetime, **also: Any
) -> bool:
    """Set the hash, raise the epoch and end every session; False when the account changed since it was read."""
    changed = session.connection().execute(
        update(User)
        .where(_unchanged(account), col(User.is_active))
        .values(password_hash=password_hash, auth_epoch=account.auth_epoch + 1, **also)
    )
    if changed.rowcount != 1:
        return False
    revoke_sessions(session, col(RefreshToken.user_id) == account.user_id, reason=reason, now=now)
    return True


def delete_account(session: Session, account: Credentials) -> bool:
    """Its sessions go with it by foreign key; False when the account changed since it was read."""
    keep_an_admin(session, without=account.user_id)
    user = session.get(User, account.user_id, with_for_update=True)
    if user is None or (user.password_hash, user.auth_epoch) != (account.password_hash, account.auth_epoch):
        return False
    session.delete(user)
    session.flush()
    return True


def _unchanged(account: Credentials) -> Any:
    return (
        (col(User.id) == account.user_id)
        & (col(User.password_hash) == account.password_hash)
        & (col(User.auth_epoch) == account.auth_epoch)
    )


def lock_user(session: Session, user_id: UUID) -> None:
    """Whoever changes several sessions of a user locks the user first: two such changes cannot deadlock."""
    session.connection().execute(select(col(User.id)).where(col(User.id) == user_id).with_for_update(key_share=True))


def keep_an_admin(session: Session, *, without: UUID) -> None:
    """Raise LastAdmin if nobody else could administer. The rows are locked, so two admins cannot remove each other."""
    admin_role = select(col(Role.id)).where(col(Role.name) == ADMIN).scalar_subquery()
    admins = session.connection().execute(
        select(col(User.id))
        .where(col(User.role_id) == admin_role, col(User.is_active))
        .order_by(col(User.id))
        .with_for_update(key_share=True)
    )
    if set(admins.scalars()) == {without}:
        raise LastAdmin

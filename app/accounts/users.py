"""Accounts: finding and creating users, replacing passwords, and keeping one admin."""

from contextlib import suppress
from typing import Any
from uuid import UUID

from sqlalchemy import Delete, Update
from sqlalchemy.orm import joinedload
from sqlmodel import Session, col, delete, select, update

from app.core.dialects import lift_statement_timeout
from app.core.errors import Conflict, LastAdmin, RolesMissing, SessionNotFound, UserNotFound, found
from app.core.scopes import ADMIN, USER
from app.models.audit import PasswordEvent, record, record_deletion
from app.models.refresh_token import RefreshToken
from app.models.types import NO_MAILBOX
from app.models.user import Role, User
from app.oauth2.refresh_tokens import revoke_sessions

# SQLModel types a relationship as its value, not as the attribute that joinedload takes.
USERS = select(User).options(joinedload(User.role, innerjoin=True))  # type: ignore[arg-type]

# ---- Finding ----


def find_user(session: Session, user_id: UUID) -> User | None:
    """The user with this id, with their role; None if there is none."""
    return session.exec(USERS.where(User.id == user_id)).one_or_none()


def find_user_by_email(session: Session, email: str) -> User | None:
    """The user with this address, with their role; None if there is none."""
    return session.exec(USERS.where(User.email == email)).one_or_none()


def get_user(session: Session, user_id: UUID) -> User:
    """The user with their role, or UserNotFound."""
    return found(find_user(session, user_id), UserNotFound)


def lock_user(session: Session, user_id: UUID) -> User | None:
    """The user with their role, locked until the transaction ends.

    Lock the user before changing several of their sessions, so that two such changes cannot deadlock.
    """
    return session.exec(USERS.where(User.id == user_id).with_for_update(key_share=True, of=User)).one_or_none()


# ---- Creating and changing ----


def create_user(session: Session, user: User, role: str = USER) -> User:
    """Insert a user with this role. If the address is taken, the unique constraint raises EmailTaken."""
    user.role = get_role(session, role)
    session.add(user)
    session.flush()
    record(session, "account-created", user_id=user.id, role=role)
    return user


def free_address(session: Session, email: str) -> None:
    """Free an address that its account never verified, for a person who has verified it elsewhere.

    The account is left without a mailbox, and its owner, once signed in, can enter another address.
    """
    holder = session.exec(select(User).where(User.email == email, ~col(User.is_verified)).with_for_update()).first()
    if holder is not None:
        holder.email = f"{holder.id}{NO_MAILBOX}"
        record(session, "email-lost", user_id=holder.id)
        session.flush()


def find_role(session: Session, name: str) -> Role | None:
    return session.exec(select(Role).where(Role.name == name)).one_or_none()


def get_role(session: Session, name: str) -> Role:
    """The role, or RolesMissing: without roles in the database nobody can register."""
    missing = f"There is no role {name}. The operator runs ./scripts/seed.py, or corrects OIDC_ROLE_MAP."
    return found(find_role(session, name), RolesMissing(missing, retry_after=60))


def change_role(session: Session, user: User, role: Role, **details: Any) -> None:
    """Give a locked user this role; `details` are for the audit log."""
    if role is not user.role:
        user.role = role
        record(session, "role-changed", user_id=user.id, role=role.name, **details)


def request_email_change(session: Session, user: User, new_email: str) -> None:
    """Store the address that is to be confirmed, or raise Conflict if the account has changed since it was read."""
    _apply_if_unchanged(session, user, update(User).values(new_email=new_email))
    record(session, "email-change-requested", user_id=user.id)


def upgrade_hash(session: Session, user: User, stronger_hash: str) -> None:
    """Replace the hash of the same password, unless the password has changed since."""
    with suppress(Conflict):
        _apply_if_unchanged(session, user, update(User).values(password_hash=stronger_hash))


def replace_password(session: Session, user: User, password_hash: str, *, reason: PasswordEvent, **also: Any) -> int:
    """Set the hash and end all sessions; or raise Conflict if the account has changed since it was read.

    Returns the new auth_epoch.
    """
    epoch = user.auth_epoch + 1
    values = {"password_hash": password_hash, "auth_epoch": epoch, "new_email": None, **also}
    _apply_if_unchanged(session, user, update(User).where(col(User.is_active)).values(values))
    revoke_sessions(session, col(RefreshToken.user_id) == user.id, reason=reason)
    record(session, reason, user_id=user.id, by_owner=True)
    return epoch


def end_all_sessions(session: Session, user: User, *, reason: str) -> None:
    """Revoke every session of a locked user, with sign-ins in progress, mailed links and a pending new address."""
    user.auth_epoch, user.new_email = user.auth_epoch + 1, None
    revoke_sessions(session, col(RefreshToken.user_id) == user.id, reason=reason)


def end_session(session: Session, *, user_id: UUID, session_id: UUID, reason: str) -> None:
    """Revoke one session of a user, or SessionNotFound."""
    one = (col(RefreshToken.user_id) == user_id, col(RefreshToken.id) == session_id)
    if revoke_sessions(session, *one, reason=reason) == 0:
        raise SessionNotFound
    record(session, "session-revoked", user_id=user_id, session_id=session_id)


def delete_account(session: Session, user: User) -> None:
    """Delete the account, or raise Conflict if it has changed since it was read.

    Foreign keys delete what belongs to it, in the same statement: 10 s for half a million rows.
    """
    keep_an_admin(session, without=user.id)
    lift_statement_timeout(session)
    _apply_if_unchanged(session, user, delete(User))
    record_deletion(session, user.id)


def _apply_if_unchanged(session: Session, read: User, change: Update | Delete) -> None:
    """Change or delete the account, or raise Conflict if it has changed since it was read."""
    unchanged = (col(User.id) == read.id, col(User.email) == read.email, col(User.auth_epoch) == read.auth_epoch)
    if session.exec(change.where(*unchanged, col(User.password_hash) == read.password_hash)).rowcount == 0:
        raise Conflict


# ---- The last admin ----


def keep_an_admin(session: Session, *, without: UUID) -> None:
    """Raise LastAdmin if `without` is the only admin. The rows are locked, so two admins cannot remove each other."""
    admins = select(User.id).join(Role).where(Role.name == ADMIN, col(User.is_active)).order_by(col(User.id))
    if set(session.exec(admins.with_for_update(key_share=True, of=User))) == {without}:
        raise LastAdmin

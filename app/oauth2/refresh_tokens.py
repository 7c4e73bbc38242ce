"""Sessions in the database: the authentication query, and the functions that list, insert, change and revoke sessions.

The authentication query is one of the three places that go past the session to Core: with three entities it takes
165 µs instead of 85, and every request makes it. The fields of SessionSnapshot name its columns.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Label, Select, Update
from sqlalchemy import select as select_columns
from sqlmodel import Session, bindparam, col, func, select, update
from sqlmodel.sql.expression import SelectOfScalar

from app.core.row_reader import Rows, read_rows
from app.models.base import utcnow
from app.models.refresh_token import Principal, RefreshToken, SessionSnapshot
from app.models.user import Identity, Role, User

# ---- Signing in ----


@dataclass(frozen=True, slots=True)
class Device:
    """The client that signs in, as the account's owner sees it. Nothing here authenticates the client."""

    client_id: str
    device: str
    ip: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """A person who has signed in, on a device, with a scope (None: all of the role's, including those added later).

    `auth_epoch` was read together with the verified password. `method` is for the audit log; None records nothing here:
    the session replaces another one, or begins with a code, whose redemption is recorded. `in_cookie`: a browser keeps
    the access token in a cookie, and gets no other. For a session that begins with a code, `authenticated_at` is when
    the person signed in to the browser.
    """

    user_id: UUID
    auth_epoch: int
    device: Device
    scope: str | None = None
    method: Literal["password", "cookie", "provider"] | None = None
    in_cookie: bool = False
    authenticated_at: datetime | None = None


# ---- The authentication query ----

_COLUMNS: dict[str, Any] = {
    "user_id": User.id,
    "has_password": col(User.password_hash).is_not(None),
    "user_epoch": User.auth_epoch,
    "user_created_at": User.created_at,
    "role": Role.name,
    "role_scopes": Role.scopes,
    "authenticated_at": func.coalesce(RefreshToken.authenticated_at, RefreshToken.created_at),
}


def _columns(snapshot: type[Principal], table: type[RefreshToken | User]) -> list[Label[Any]]:
    """The columns of a snapshot's own fields, without inherited ones, labeled with the field names."""
    names = snapshot.__annotations__
    return [(_COLUMNS[name] if name in _COLUMNS else getattr(table, name)).label(name) for name in names]


def _snapshots(table: type[RefreshToken | Identity], *columns: Label[Any]) -> Select[*tuple[Any, ...]]:
    """Rows of a table with their principals."""
    statement = select_columns(*_columns(Principal, User), *columns)
    return statement.join(User, col(User.id) == table.user_id).join(Role, col(Role.id) == User.role_id)


_SESSIONS = _snapshots(RefreshToken, *_columns(SessionSnapshot, RefreshToken))
SESSION_QUERY = _SESSIONS.where(col(RefreshToken.id) == bindparam("id"))
_IDENTITIES = _snapshots(
    Identity,
    col(Identity.id).label("id"),
    col(Identity.created_at).label("authenticated_at"),
    col(Identity.synced_at).label("rotated_at"),
    col(User.auth_epoch).label("auth_epoch"),
)
_NAMED = (col(Identity.issuer) == bindparam("issuer"), col(Identity.subject) == bindparam("subject"))
_IDENTITY = _IDENTITIES.where(*_NAMED)


# ---- Reading ----


def snapshot_of(rows: Rows) -> SessionSnapshot | None:
    """The snapshot in the rows of the authentication query or of an identity: one row, or none."""
    return SessionSnapshot(**rows[0]) if rows else None


def read_session(session: Session, session_id: UUID) -> SessionSnapshot | None:
    """The authentication query in a session; app/authentication.py makes it without one."""
    return snapshot_of(read_rows(session, SESSION_QUERY, {"id": session_id}))


def read_identity(session: Session, *, issuer: str, subject: str) -> SessionSnapshot | None:
    """The user behind an external identity, with the identity in place of a session."""
    return snapshot_of(read_rows(session, _IDENTITY, {"issuer": issuer, "subject": subject}))


def live_scopes(session: Session, ids: Collection[UUID], now: datetime) -> dict[UUID, frozenset[str]]:
    """The scopes in force of each of these sessions and identities that is still live."""
    rows = read_rows(session, _SESSIONS.where(col(RefreshToken.id).in_(ids)), {})
    if others := set(ids).difference(row["id"] for row in rows):
        rows += read_rows(session, _IDENTITIES.where(col(Identity.id).in_(others)), {})
    snapshots = [SessionSnapshot(**row) for row in rows]
    return {snapshot.id: snapshot.scopes() for snapshot in snapshots if snapshot.is_live(now)}


def live_sessions(user_id: UUID, now: datetime) -> SelectOfScalar[RefreshToken]:
    """A user's sessions that could still be used."""
    return select(RefreshToken).join(col(RefreshToken.user)).where(RefreshToken.user_id == user_id, *_live(now))


def live_addresses(session: Session, email: str, now: datetime) -> Sequence[str]:
    """The IP addresses that an account's live sessions were started from."""
    statement = select(RefreshToken.ip).join(col(RefreshToken.user)).where(User.email == email, *_live(now)).distinct()
    return session.exec(statement).all()


def _live(now: datetime) -> tuple[Any, ...]:
    """The conditions of sessions, joined with their users, that could still be used."""
    return (
        col(User.auth_epoch) == RefreshToken.auth_epoch,
        col(RefreshToken.generation) > 0,  # 0: an authorization code that nobody has redeemed
        col(RefreshToken.revoked_at).is_(None),
        col(RefreshToken.idle_expires_at) > now,
        col(RefreshToken.absolute_expires_at) > now,
    )


# ---- Changing ----


def insert_session(session: Session, sign_in: SignIn, now: datetime, **columns: Any) -> RefreshToken:
    """Insert a session. `columns` has its idle and absolute limits, and perhaps more."""
    row = RefreshToken(
        user_id=sign_in.user_id,
        auth_epoch=sign_in.auth_epoch,
        scope=sign_in.scope,
        **asdict(sign_in.device),
        secret=secrets.token_bytes(32),
        rotated_at=now,
        created_at=now,
        last_used_at=now,
        authenticated_at=sign_in.authenticated_at,
        **columns,
    )
    session.add(row)
    session.flush()
    return row


def compare_and_swap(session: Session, read: SessionSnapshot, **changes: Any) -> bool:
    """Change the row if it is still as it was read. After False, read it and decide again."""
    known = {"id_": read.id, "generation_": read.generation, "confirmed_": read.confirmed}
    return session.exec(_compare_and_swap_statement(frozenset(changes)), params={**known, **changes}).rowcount == 1


@cache  # a statement built for each request takes 1 ms, this one 0.2
def _compare_and_swap_statement(changed: frozenset[str]) -> Update:
    if_unchanged = update(RefreshToken).filter_by(
        id=bindparam("id_"), generation=bindparam("generation_"), confirmed=bindparam("confirmed_"), revoked_at=None
    )
    return if_unchanged.values(dict.fromkeys(changed)).execution_options(synchronize_session=False)


def revoke_sessions(session: Session, *conditions: Any, reason: str) -> int:
    """Revoke the matching sessions that are not revoked yet, and return their number."""
    unrevoked = update(RefreshToken).filter_by(revoked_at=None).where(*conditions)
    return session.exec(unrevoked.values(revoked_at=utcnow(), revoke_reason=reason)).rowcount

"""Sessions as rows: the one query that reads them, the one way to change them, and the rotation table of AUTH.md."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, select, update
from sqlmodel import Session, col

from app.core.settings import get_settings
from app.models.refresh_token import RefreshToken
from app.models.user import Identity, Role, User


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """A session, its user and the user's role, as one query reads them: the columns of _SESSION, in their order."""

    id: UUID
    client_id: str
    device: str
    scope: str | None
    secret: bytes
    auth_epoch: int
    generation: int
    parent_generation: int
    confirmed: bool
    rotated_at: datetime
    created_at: datetime
    idle_expires_at: datetime
    absolute_expires_at: datetime
    revoked_at: datetime | None
    user_id: UUID
    email: str
    name: str | None
    is_active: bool
    is_verified: bool
    user_epoch: int
    user_created_at: datetime
    operations_revision: int
    operations_floor: int
    role: str
    role_scopes: list[str]
    has_password: bool

    def is_live(self, now: datetime) -> bool:
        return (
            self.revoked_at is None
            and self.is_active
            and self.auth_epoch == self.user_epoch
            and now < self.idle_expires_at
            and now < self.absolute_expires_at
            and not (self.has_password and get_settings().local_accounts == "off")
        )

    def scopes(self) -> frozenset[str]:
        """What the session may do today: its own scopes, as far as the role still has them."""
        role = frozenset(self.role_scopes)
        return role if self.scope is None else role.intersection(self.scope.split())


_PERSON = (
    col(User.id),
    col(User.email),
    col(User.name),
    col(User.is_active),
    col(User.is_verified),
    col(User.auth_epoch),
    col(User.created_at),
    col(User.operations_revision),
    col(User.operations_floor),
    col(Role.name),
    col(Role.scopes),
    col(User.password_hash).is_not(None),
)
_SESSION: Select[*tuple[Any, ...]] = (
    select(
        col(RefreshToken.id),
        col(RefreshToken.client_id),
        col(RefreshToken.device),
        col(RefreshToken.scope),
        col(RefreshToken.secret),
        col(RefreshToken.auth_epoch),
        col(RefreshToken.generation),
        col(RefreshToken.parent_generation),
        col(RefreshToken.confirmed),
        col(RefreshToken.rotated_at),
        col(RefreshToken.created_at),
        col(RefreshToken.idle_expires_at),
        col(RefreshToken.absolute_expires_at),
        col(RefreshToken.revoked_at),
        *_PERSON,
    )
    .join(User, col(User.id) == col(RefreshToken.user_id))
    .join(Role, col(Role.id) == col(User.role_id))
)
_ONE_SESSION = _SESSION.where(col(RefreshToken.id) == bindparam("session_id"))
_IDENTITY: Select[*tuple[Any, ...]] = (
    select(col(Identity.id), col(Identity.synced_at), col(Identity.created_at), *_PERSON)
    .join(User, col(User.id) == col(Identity.user_id))
    .join(Role, col(Role.id) == col(User.role_id))
)
_ONE_IDENTITY = _IDENTITY.where(
    col(Identity.issuer) == bindparam("issuer"), col(Identity.subject) == bindparam("subject")
)
_ENDS_ELSEWHERE = datetime.max.replace(tzinfo=UTC)


class Move(Enum):
    """What a refresh token of a known generation leads to."""

    ROTATE = auto()  # the newest token: hand out its successor
    REPEAT = auto()  # its parent, just now: a retry or a second process, the same successor again
    REPLACE = auto()  # its parent, and nobody used the successor: that answer was lost
    THEFT = auto()  # anything else was handed out and superseded: two people hold this session


def read_state(session: Session, session_id: UUID) -> SessionSnapshot | None:
    row = session.connection().execute(_ONE_SESSION, {"session_id": session_id}).first()
    return SessionSnapshot(*row) if row else None


def read_identity(session: Session, issuer: str, subject: str) -> SessionSnapshot | None:
    row = session.connection().execute(_ONE_IDENTITY, {"issuer": issuer, "subject": subject}).first()
    return _identity_state(row) if row else None


def _identity_state(row: Any) -> SessionSnapshot:
    """A person with tokens of the identity provider, as a session that nothing here rotates, revokes or ends."""
    identity_id, synced_at, created_at, *person = row
    user_epoch = person[5]
    fixed = (b"", user_epoch, 0, 0, True, synced_at, created_at, _ENDS_ELSEWHERE, _ENDS_ELSEWHERE, None)
    return SessionSnapshot(identity_id, "", "", None, *fixed, *person)


def live_scopes(session: Session, ids: Collection[UUID], now: datetime) -> dict[UUID, frozenset[str]]:
    """What those of these sessions and identities may do today that could still be used."""
    rows = session.connection().execute(_SESSION.where(col(RefreshToken.id).in_(ids)))
    states = [SessionSnapshot(*row) for row in rows]
    if others := set(ids).difference(state.id for state in states):
        rows = session.connection().execute(_IDENTITY.where(col(Identity.id).in_(others)))
        states += map(_identity_state, rows)
    return {state.id: state.scopes() for state in states if state.is_live(now)}


def swap(session: Session, state: SessionSnapshot, **changes: Any) -> bool:
    """Change the row if it is still as it was read; False when somebody else was first: read and classify again."""
    changed = session.connection().execute(
        update(RefreshToken)
        .where(
            col(RefreshToken.id) == state.id,
            col(RefreshToken.generation) == state.generation,
            col(RefreshToken.confirmed) == state.confirmed,
            col(RefreshToken.revoked_at).is_(None),
        )
        .values(**changes)
    )
    return changed.rowcount == 1


def next_move(presented: int, state: SessionSnapshot, *, arrived: datetime, grace: timedelta) -> Move:
    """The rotation table of AUTH.md, first row that fits. Ahead with a good MAC means that a database was restored."""
    if presented >= state.generation:
        return Move.ROTATE
    if presented == state.parent_generation:
        if arrived - state.rotated_at <= grace:
            return Move.REPEAT
        if not state.confirmed:
            return Move.REPLACE
    return Move.THEFT


def is_superseded(generation: int, state: SessionSnapshot) -> bool:
    """Handed out in an answer that was given again with another token: its use means that two people hold it."""
    return state.parent_generation < generation < state.generation


def is_unconfirmed(generation: int, state: SessionSnapshot) -> bool:
    return generation == state.generation and not state.confirmed


def revoke_sessions(session: Session, *conditions: Any, reason: str, now: datetime) -> int:
    """Revoke the live sessions that fit; how many that were."""
    changed = session.connection().execute(
        update(RefreshToken)
        .where(col(RefreshToken.revoked_at).is_(None), *conditions)
        .values(revoked_at=now, revoke_reason=reason)
    )
    return changed.rowcount


def live_sessions(
    session: Session, user_id: UUID, *, before: UUID | None, limit: int, now: datetime
) -> Sequence[RefreshToken]:
    """The sessions that could still be used, the latest sign-in first."""
    statement = (
        select(RefreshToken)
        .join(
            User,
            (col(User.id) == col(RefreshToken.user_id)) & (col(User.auth_epoch) == col(RefreshToken.auth_epoch)),
        )
        .where(
            col(RefreshToken.user_id) == user_id,
            col(RefreshToken.revoked_at).is_(None),
            col(RefreshToken.idle_expires_at) > now,
            col(RefreshToken.absolute_expires_at) > now,
        )
        .order_by(col(RefreshToken.id).desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(col(RefreshToken.id) < before)
    return session.scalars(statement).all()

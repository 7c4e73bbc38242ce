"""The ledger: one revision per owner orders every change (docs/decisions/0007-one-revision-per-owner.md).

Whoever changes an operation locks its owner's row first, then the operation. The revision is taken under that lock, so
that revisions are gapless and appear in the order of their commits.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, literal_column, select, tuple_, update
from sqlmodel import Session, col

from app.core.decimals import ExactDecimal
from app.core.errors import InvalidToken, OperationNotFound, PreconditionFailed, ResyncRequired
from app.core.etags import etag, if_match
from app.models.operation import (
    Changes,
    Imported,
    Operation,
    OperationCreate,
    OperationPublic,
    Tombstone,
    Total,
)
from app.models.refresh_token import SessionSnapshot
from app.models.user import User

_BATCH = 1000
_SENT = tuple(OperationCreate.model_fields)
_NAMES = tuple(OperationPublic.model_fields)
_COLUMNS = [col(getattr(Operation, name)) for name in _NAMES]
_OWN = select(*_COLUMNS).where(col(Operation.owner_id) == bindparam("owner"))
_LIVE = _OWN.where(col(Operation.deleted_at).is_(None))
_ONE = _LIVE.where(col(Operation.id) == bindparam("operation"))
_NEWEST_FIRST = _LIVE.order_by(col(Operation.date).desc(), col(Operation.id).desc())
_CHANGED = (
    _OWN.add_columns(col(Operation.deleted_at))
    .where(col(Operation.revision) > bindparam("since"))
    .order_by(col(Operation.revision))
    .limit(bindparam("most"))
)
_FLOOR = select(col(User.operations_floor)).where(col(User.id) == bindparam("owner"))
_LOCK = select(col(User.id)).where(col(User.id) == bindparam("owner")).with_for_update(key_share=True)
_TAKE = (
    update(User)
    .where(col(User.id) == bindparam("owner"))
    .values(operations_revision=col(User.operations_revision) + bindparam("count"))
    .returning(col(User.operations_revision))
)
_INSERT = insert(Operation)


def _public(row: Sequence[Any]) -> OperationPublic:
    return OperationPublic.model_construct(**dict(zip(_NAMES, row, strict=False)))


# ---- What is read ----


def read_operation(session: Session, owner_id: UUID, operation_id: int) -> OperationPublic:
    row = session.connection().execute(_ONE, {"owner": owner_id, "operation": operation_id}).first()
    if row is None:
        raise OperationNotFound
    return _public(row)


def list_operations(
    session: Session, owner_id: UUID, conditions: Sequence[Any], *, after: Sequence[str] | None, limit: int
) -> list[OperationPublic]:
    """The newest first: by date, then id. `after` is what `position` says of the last one that the caller has."""
    statement = _NEWEST_FIRST.where(*conditions).limit(limit)
    if after:
        date, operation_id = datetime.fromisoformat(after[0]), int(after[1])
        statement = statement.where(tuple_(col(Operation.date), col(Operation.id)) < (date, operation_id))
    return [_public(row) for row in session.connection().execute(statement, {"owner": owner_id})]


def count_operations(session: Session, owner_id: UUID, conditions: Sequence[Any]) -> int:
    live = (col(Operation.owner_id) == owner_id, col(Operation.deleted_at).is_(None), *conditions)
    return session.connection().execute(select(func.count()).select_from(Operation).where(*live)).scalar_one()


def position(operation: OperationPublic) -> list[str]:
    return [operation.date.isoformat(), str(operation.id)]


def read_changes(session: Session, state: SessionSnapshot, *, since: int, limit: int, known: int) -> Changes:
    """What happened after the revision `since`; a purge above the revision `known` would hide a delete from the client.

    The floor is read after the rows: a purge between the authentication and the rows shows in it.
    """
    found = session.connection().execute(_CHANGED, {"owner": state.user_id, "since": since, "most": limit + 1}).all()
    floor = session.connection().execute(_FLOOR, {"owner": state.user_id}).scalar_one_or_none()
    if floor is None:
        raise InvalidToken
    if since > state.operations_revision or floor > known:
        raise ResyncRequired
    more, rows = len(found) > limit, found[:limit]
    last = rows[-1].revision if rows else since
    return Changes.model_construct(
        changes=[_tombstone(row) if row.deleted_at else _public(row) for row in rows],
        next=last if more else max(last, state.operations_revision),
        more=more,
    )


def _tombstone(row: Any) -> Tombstone:
    return Tombstone.model_construct(id=row.id, revision=row.revision, deleted_at=row.deleted_at)


def summarize(session: Session, owner_id: UUID) -> list[Total]:
    """Totals by type, instrument type and month (UTC); the latest month first."""
    connection = session.connection()
    on_sqlite = connection.dialect.name == "sqlite"
    in_utc = "substr(date, 1, 7)" if on_sqlite else "to_char(date, 'YYYY-MM')"  # db.py: the connection's zone is UTC
    month: ColumnElement[str] = literal_column(in_utc)
    total = (func.exact_sum if on_sqlite else func.sum)(col(Operation.quantity), type_=ExactDecimal)
    by = (col(Operation.type), col(Operation.instrument_type), month)
    live = (col(Operation.owner_id) == owner_id, col(Operation.deleted_at).is_(None))
    rows = connection.execute(select(*by, func.count(), total).where(*live).group_by(*by))
    totals = [_total(*row) for row in rows]
    totals.sort(key=lambda total: (total.type, total.instrument_type or ""))  # here: no two databases collate alike
    return sorted(totals, key=lambda total: total.month, reverse=True)


def _total(kind: str, instrument_type: str | None, month: str, count: int, quantity: Decimal) -> Total:
    return Total.model_construct(
        type=kind, instrument_type=instrument_type, month=month, count=count, quantity=quantity
    )


# ---- What is written ----


def lock_owner(session: Session, owner_id: UUID) -> None:
    """Nobody else changes this owner's operations until the transaction ends."""
    if session.connection().execute(_LOCK, {"owner": owner_id}).first() is None:
        raise InvalidToken  # the account was deleted after it was authenticated


def create_operation(session: Session, owner_id: UUID, body: OperationCreate, now: datetime) -> OperationPublic:
    stamps = {"owner_id": owner_id, "created_at": now, "updated_at": now}
    values = {**dict(body), **stamps, "revision": _take_revisions(session, owner_id)}
    return _public(session.connection().execute(_INSERT.returning(*_COLUMNS), values).one())


def import_operations(session: Session, owner_id: UUID, rows: Sequence[tuple[Any, ...]], now: datetime) -> Imported:
    """All of them, each with a revision of its own, in their order. A row is the values of OperationCreate's fields."""
    last = _take_revisions(session, owner_id, len(rows))
    stamps = {"owner_id": owner_id, "created_at": now, "updated_at": now}
    for start in range(0, len(rows), _BATCH):
        first = last - len(rows) + 1 + start
        batch = [
            {**dict(zip(_SENT, row, strict=True)), **stamps, "revision": first + n}
            for n, row in enumerate(rows[start : start + _BATCH])
        ]
        session.connection().execute(_INSERT, batch)
    return Imported(created=len(rows), revision=last)


def change_operation(
    session: Session, current: OperationPublic, changes: Mapping[str, Any], now: datetime
) -> OperationPublic:
    """Set the fields in `changes` of what `locked_operation` gave. What changes nothing writes nothing."""
    changed = {name: value for name, value in changes.items() if getattr(current, name) != value}
    return _touch(session, current, {**changed, "updated_at": now}) if changed else current


def delete_operation(session: Session, current: OperationPublic, now: datetime) -> None:
    """The row stays as a tombstone, for phones that have a copy of it."""
    _touch(session, current, {"updated_at": now, "deleted_at": now})


def locked_operation(
    session: Session, owner_id: UUID, operation_id: int, only_if: Sequence[str] | None
) -> OperationPublic:
    """The operation as it stays until the transaction ends; `only_if` is If-Match, judged under the lock."""
    lock_owner(session, owner_id)
    current = read_operation(session, owner_id, operation_id)
    if only_if is not None and not if_match(only_if, etag(owner_id, current.revision)):
        raise PreconditionFailed
    return current


def _touch(session: Session, current: OperationPublic, values: dict[str, Any]) -> OperationPublic:
    revision = _take_revisions(session, current.owner_id)
    one = (col(Operation.owner_id) == current.owner_id, col(Operation.id) == current.id)
    statement = update(Operation).where(*one).values(**values, revision=revision).returning(*_COLUMNS)
    return _public(session.connection().execute(statement).one())


def _take_revisions(session: Session, owner_id: UUID, count: int = 1) -> int:
    """The last of `count` new revisions. Locks the owner's row, as `lock_owner` does."""
    taken = session.connection().execute(_TAKE, {"owner": owner_id, "count": count}).scalar_one_or_none()
    if taken is None:
        raise InvalidToken
    return int(taken)


# ---- What is purged ----


def _purgeable(before: datetime) -> list[ColumnElement[bool]]:
    """Old tombstones. The highest id stays whatever it is: SQLite would give it to another operation."""
    highest = select(func.max(col(Operation.id))).scalar_subquery()
    return [col(Operation.deleted_at) < before, col(Operation.id) < highest]


def owners_of_tombstones(session: Session, before: datetime) -> Sequence[UUID]:
    """Whose operations were deleted before then."""
    return (
        session.connection()
        .execute(select(col(Operation.owner_id)).where(*_purgeable(before)).distinct())
        .scalars()
        .all()
    )


def purge_tombstones(session: Session, owner_id: UUID, before: datetime) -> None:
    """Forget what was deleted before then. The owner's floor rises with it: an older copy has to be filled anew."""
    session.connection().execute(_LOCK, {"owner": owner_id})
    own = (col(Operation.owner_id) == owner_id, *_purgeable(before))
    gone = (
        session.connection().execute(delete(Operation).where(*own).returning(col(Operation.revision))).scalars().all()
    )
    floor = max(gone, default=0)
    lower = (col(User.id) == owner_id, col(User.operations_floor) < floor)
    session.connection().execute(update(User).where(*lower).values(operations_floor=floor))

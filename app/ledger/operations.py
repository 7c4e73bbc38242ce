"""The ledger: one revision per owner orders every change (docs/decisions/0007-one-revision-per-owner.md).

A change locks the row of the operations' owner first, then the operation, and takes the next revision under that lock.
Revisions are therefore gapless, and become visible in the order of their commits.

Statements select columns, and those of every request are built once: 50 rows take 515 µs as columns and 720 as
entities, and SQLAlchemy compares each column of a statement that it has not compiled itself, which takes longer than
reading 20 rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from pydantic import MISSING
from sqlalchemy import ColumnElement, Executable, RowMapping, Select
from sqlalchemy import select as select_columns
from sqlmodel import Session, SQLModel, bindparam, col, delete, func, insert, literal_column, select, tuple_, update

from app.core import etags
from app.core.dialects import ExactDecimal
from app.core.errors import InvalidToken, OperationNotFound, PreconditionFailed, ResyncRequired, found
from app.core.row_reader import read_rows
from app.models.operation import (
    FILTERS,
    Change,
    Changes,
    ChangesQuery,
    Operation,
    OperationCreate,
    OperationFilter,
    OperationPublic,
    Total,
)
from app.models.user import User

BATCH = 1000  # operations that are read at once

_COLUMNS = [col(getattr(Operation, name)) for name in OperationPublic.model_fields]
_OWNED = select_columns(*_COLUMNS).where(col(Operation.owner_id) == bindparam("owner_id"))
# Staged rows have negative revisions. `+ 0` keeps SQLite from choosing the index on revisions for this.
_LIVE = (col(Operation.deleted_at).is_(None), col(Operation.revision) + 0 > 0)
_BY_ID = _OWNED.where(*_LIVE, col(Operation.id) == bindparam("id"))
_TYPES = SQLModel.metadata.tables["operation"].columns
_POSITION = (bindparam("after_date", type_=_TYPES["date"].type), bindparam("after_id", type_=_TYPES["id"].type))
_OLDER = tuple_(col(Operation.date), col(Operation.id)) < tuple_(*_POSITION)
_INSERT = insert(Operation).returning(_TYPES["id"])
_CHANGED_SINCE = _OWNED.add_columns(col(Operation.deleted_at)).where(col(Operation.revision) > bindparam("since"))
_CHANGES = _CHANGED_SINCE.order_by(col(Operation.revision)).limit(bindparam("limit"))
_OWNER = col(User.id) == bindparam("owner_id")
_FLOOR = select_columns(col(User.operations_floor)).where(_OWNER)
_LOCK_OWNER = select_columns(col(User.id)).where(_OWNER).with_for_update(key_share=True)
_NEXT = col(User.operations_revision) + bindparam("count")
_TAKE_REVISIONS = update(User).where(_OWNER).values(operations_revision=_NEXT).returning(col(User.operations_revision))


# ---- Reading ----


def read_operation(session: Session, owner_id: UUID, operation_id: int) -> OperationPublic:
    row = session.connection().execute(_BY_ID, {"owner_id": owner_id, "id": operation_id}).mappings().first()
    return OperationPublic.model_construct(**found(row, OperationNotFound))


def read_batch(
    session: Session, owner_id: UUID, filters: OperationFilter, after: Sequence[str] | None
) -> tuple[list[OperationPublic], list[str] | None]:
    """The next operations of a list of any length, and the position of the last one; None if no more follow."""
    rows = [OperationPublic.from_row(row) for row in read_rows(session, *list_query(owner_id, filters, after, BATCH))]
    return rows, position(rows[-1]) if len(rows) == BATCH else None


def list_query(
    owner_id: UUID, filters: OperationFilter, after: Sequence[str] | None, limit: int
) -> tuple[Select[Any], dict[str, Any]]:
    """Operations by date, then id, newest first. `after` is the `position` of the last one that the caller has."""
    values = filters.model_dump(exclude_none=True)
    statement = _list_statement(frozenset(values), continued=after is not None)
    values |= {"owner_id": owner_id, "limit": limit}
    if after is not None:
        values |= {"after_date": datetime.fromisoformat(after[0]), "after_id": int(after[1])}
    return statement, values


@cache
def _list_statement(filters: frozenset[str], *, continued: bool) -> Select[Any]:
    newest_first = (col(Operation.date).desc(), col(Operation.id).desc())
    statement = select_columns(*_COLUMNS).where(*_matching(filters)).order_by(*newest_first).limit(bindparam("limit"))
    return statement.where(_OLDER) if continued else statement


def position(operation: OperationPublic) -> list[str]:
    return [operation.date.isoformat(), str(operation.id)]


def count_operations(session: Session, owner_id: UUID, filters: OperationFilter) -> int:
    values = filters.model_dump(exclude_none=True)
    statement = select(func.count()).select_from(Operation).where(*_matching(values))
    return session.exec(statement, params={**values, "owner_id": owner_id}).one()


def _matching(filters: Iterable[str]) -> list[ColumnElement[bool]]:
    """The conditions on operations of `owner_id` that match the filters with these names."""
    return [col(Operation.owner_id) == bindparam("owner_id"), *_LIVE, *(FILTERS[name] for name in filters)]


def read_changes(session: Session, owner_id: UUID, query: ChangesQuery, revision: int) -> Changes:
    """The changes after the revision `query.since`, of an owner who was at `revision` when the request was
    authenticated.

    The floor is read after the rows, so that it shows a purge that happened between authentication and the rows.
    """
    values = {"owner_id": owner_id, "since": query.since, "limit": query.limit + 1}
    rows = session.connection().execute(_CHANGES, values).mappings().all()
    floor = found(session.connection().execute(_FLOOR, {"owner_id": owner_id}).scalar_one_or_none(), InvalidToken)
    if query.since > revision or floor > query.known_up_to(revision):
        raise ResyncRequired
    more, rows = len(rows) > query.limit, rows[: query.limit]
    last = rows[-1]["revision"] if rows else query.since
    changes = [_change(row) for row in rows]
    return Changes.model_construct(changes=changes, next=last if more else max(last, revision), more=more)


def _change(row: RowMapping) -> Change:
    if row["deleted_at"] is None:
        return Change.model_construct(**{**row, "deleted_at": MISSING})
    return Change.model_construct(id=row["id"], revision=row["revision"], deleted_at=row["deleted_at"])


def summarize(session: Session, owner_id: UUID, filters: OperationFilter) -> list[Total]:
    """Totals of the operations that match, by type, instrument type and month (UTC), latest month first."""
    values = filters.model_dump(exclude_none=True)
    on_sqlite = session.connection().dialect.name == "sqlite"
    # A connection's time zone is UTC (app/core/dialects.py).
    month: ColumnElement[str] = literal_column("substr(date, 1, 7)" if on_sqlite else "to_char(date, 'YYYY-MM')")
    quantity = (func.exact_sum if on_sqlite else func.sum)(col(Operation.quantity), type_=ExactDecimal)
    by = (col(Operation.type), col(Operation.instrument_type), month.label("month"))
    columns: list[Any] = [*by, func.count().label("count"), quantity.label("quantity")]
    statement = select_columns(*columns).where(*_matching(values)).group_by(*by)
    totals = [Total.model_construct(**row) for row in read_rows(session, statement, {**values, "owner_id": owner_id})]
    # Sorted here, because databases order text differently.
    totals.sort(key=lambda total: (total.type, total.instrument_type or ""))
    return sorted(totals, key=lambda total: total.month, reverse=True)


# ---- Writing ----


def lock_owner(session: Session, owner_id: UUID) -> None:
    """Lock the owner's row, so that no other transaction changes this owner's operations until this one ends.

    Raises InvalidToken if the account was deleted after the request was authenticated.
    """
    found(session.connection().execute(_LOCK_OWNER, {"owner_id": owner_id}).first(), InvalidToken)


def create_operation(session: Session, owner_id: UUID, body: OperationCreate, now: datetime) -> OperationPublic:
    common = {"owner_id": owner_id, "created_at": now, "updated_at": now}
    values = {**dict(body), **common, "revision": take_revisions(session, owner_id)}
    return OperationPublic.model_construct(**values, id=session.connection().execute(_INSERT, values).scalar_one())


def locked_operation(session: Session, owner_id: UUID, operation_id: int, only_if: list[str] | None) -> OperationPublic:
    """The operation, locked until the transaction ends. `only_if` is If-Match, which is evaluated under the lock."""
    lock_owner(session, owner_id)
    current = read_operation(session, owner_id, operation_id)
    if only_if is not None and not etags.names(only_if, current.etag):
        raise PreconditionFailed
    return current


def change_operation(
    session: Session, current: OperationPublic, changes: Mapping[str, Any], now: datetime
) -> OperationPublic:
    """Update a locked operation. If no value differs, nothing is written."""
    changed = {name: value for name, value in changes.items() if getattr(current, name) != value}
    return _update(session, current, {**changed, "updated_at": now}) if changed else current


def delete_operation(session: Session, current: OperationPublic, now: datetime) -> None:
    """Turn a locked operation into a tombstone, from which clients that have a copy learn of the deletion."""
    _update(session, current, {"updated_at": now, "deleted_at": now})


def _update(session: Session, current: OperationPublic, values: dict[str, Any]) -> OperationPublic:
    values["revision"] = take_revisions(session, current.owner_id)
    statement, own = _update_statement(frozenset(values)), {"owner": current.owner_id, "row": current.id}
    row = session.connection().execute(statement, {**own, **values}).mappings().one()
    return OperationPublic.model_construct(**row)


@cache
def _update_statement(changed: frozenset[str]) -> Executable:
    own = (col(Operation.owner_id) == bindparam("owner"), col(Operation.id) == bindparam("row"))
    # None only names a column: the values are bound when the statement is executed.
    return update(Operation).where(*own).values(dict.fromkeys(changed)).returning(*_COLUMNS)


def take_revisions(session: Session, owner_id: UUID, count: int = 1) -> int:
    """The last of `count` new revisions. Locks the owner's row, as `lock_owner` does."""
    taken = session.connection().execute(_TAKE_REVISIONS, {"owner_id": owner_id, "count": count}).scalar_one_or_none()
    return int(found(taken, InvalidToken))


# ---- Purging ----


def owners_of_tombstones(session: Session, before: datetime) -> Sequence[UUID]:
    """The owners of tombstones older than `before`. With DISTINCT, SQLite would read everybody's operations instead."""
    owners = select(Operation.owner_id).where(col(Operation.deleted_at) < before)
    return session.exec(select(User.id).where(col(User.id).in_(owners))).all()


def purge_tombstones(session: Session, owner_id: UUID, before: datetime) -> None:
    """Remove an owner's old tombstones, and raise the owner's floor: older copies need a resync."""
    session.connection().execute(_LOCK_OWNER, {"owner_id": owner_id})
    purged = delete(Operation).where(col(Operation.owner_id) == owner_id, col(Operation.deleted_at) < before)
    floor = max(session.exec(purged.returning(col(Operation.revision))).scalars(), default=0)
    lower = (col(User.id) == owner_id, col(User.operations_floor) < floor)
    session.exec(update(User).where(*lower).values(operations_floor=floor))

"""Imports into the ledger: in one transaction or, where others would wait for it, staged in batches and published.

Rows are inserted past the session, as in operations.py: 1,000 take 13 ms of CPU, and 16 through it.
"""

from collections.abc import Sequence
from datetime import datetime
from heapq import merge
from operator import itemgetter
from secrets import randbits
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, insert, update
from sqlmodel import Session, col, select

from app.core.errors import Unavailable
from app.ledger.csv_format import COLUMNS
from app.ledger.operations import lock_owner, take_revisions
from app.models.operation import Imported, Operation
from app.models.user import User

# Rows of a file, each as the values of COLUMNS: objects would take twice the memory.
FileRows = Sequence[tuple[Any, ...]]
BATCH = 1000  # rows in one statement and, when they are staged, in one transaction
_DATE = itemgetter(COLUMNS.index("date"))


def by_date(rows: FileRows) -> list[tuple[Any, ...]]:
    """Sort rows by date: writing neighbors in the indexes together takes a third of the time.

    They are sorted in pieces. One sort of 660,000 rows would keep all other threads of the process waiting for seconds.
    """
    pieces = (sorted(rows[start : start + BATCH], key=_DATE) for start in range(0, len(rows), BATCH))
    return list(merge(*pieces, key=_DATE))


def import_operations(session: Session, owner_id: UUID, rows: FileRows, now: datetime) -> Imported:
    """Create operations in the order of `rows`, each with a revision of its own."""
    last = take_revisions(session, owner_id, len(rows))
    _insert_rows(session, owner_id, rows, now, range(last - len(rows) + 1, last + 1))
    return Imported(created=len(rows), revision=last)


def _insert_rows(session: Session, owner_id: UUID, rows: FileRows, now: datetime, revisions: range) -> None:
    common = {"owner_id": owner_id, "created_at": now, "updated_at": now}
    for start in range(0, len(rows), BATCH):
        batch = [
            {**dict(zip(COLUMNS, row, strict=True)), **common, "revision": revision}
            for row, revision in zip(rows[start : start + BATCH], revisions[start : start + BATCH], strict=True)
        ]
        session.connection().execute(insert(Operation), batch)


def staged_revisions(count: int) -> range:
    """Provisional revisions of a staged import: negative, and random, so that two imports do not overlap."""
    first = -(randbits(30) + 1) << 32
    return range(first, first + count)


def stage_operations(session: Session, owner_id: UUID, rows: FileRows, now: datetime, revisions: range) -> None:
    """Insert operations with provisional revisions. Nobody can read them until they are published."""
    lock_owner(session, owner_id)
    _insert_rows(session, owner_id, rows, now, revisions)


def publish_operations(session: Session, owner_id: UUID, staged: range) -> Imported:
    """Give staged operations the owner's next revisions. Only the column of the revision and its index change."""
    last = take_revisions(session, owner_id, len(staged))
    published = col(Operation.revision) + (last - staged[-1])
    publish = update(Operation).where(*_staged(owner_id, staged)).values(revision=published)
    # Not through the session, which would ask for all the ids, to update its own objects, while others wait.
    if session.connection().execute(publish).rowcount != len(staged):
        # The purge has deleted staged rows.
        raise Unavailable("The import took too long. Try again shortly.", retry_after=10)
    return Imported(created=len(staged), revision=last)


def discard_operations(session: Session, owner_id: UUID, staged: range) -> None:
    session.exec(delete(Operation).where(*_staged(owner_id, staged)))


def _staged(owner_id: UUID, staged: range) -> tuple[ColumnElement[bool], ...]:
    return col(Operation.owner_id) == owner_id, col(Operation.revision).between(staged[0], staged[-1])


def abandoned(before: datetime) -> ColumnElement[bool]:
    """The condition on rows that were staged before then. Naming the owners lets the index on revisions find them."""
    owners = col(Operation.owner_id).in_(select(User.id))
    return owners & (col(Operation.revision) < 0) & (col(Operation.created_at) < before)

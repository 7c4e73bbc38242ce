"""Operations: the ledger's rows, what is read and written of them, and the answers kept for repeated requests."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import MISSING
from sqlalchemy import JSON, BigInteger, Index, text
from sqlmodel import Field, SQLModel, UniqueConstraint

from app.core.decimals import ExactDecimal
from app.models.base import BigId, Body, utcnow
from app.models.types import MAX_TEXT, Amount, Figi, Instrument, Kind, Moment

_LIVE = text("deleted_at IS NULL")
_DELETED = text("deleted_at IS NOT NULL")


def _live_index(*columns: str) -> Index:
    """For a list: what it filters by, then its order. Tombstones are not in it."""
    return Index(None, "owner_id", *columns, "date", "id", sqlite_where=_LIVE, postgresql_where=_LIVE)


class OperationBase(SQLModel):
    type: Kind = Field(max_length=MAX_TEXT)
    instrument_type: Instrument | None = Field(default=None, max_length=MAX_TEXT)
    figi: Figi = Field(max_length=MAX_TEXT)
    quantity: Amount = Field(sa_type=ExactDecimal)
    date: Moment


class Operation(OperationBase, table=True):
    """`revision` is the owner's revision that last touched the row. A row with deleted_at is a tombstone."""

    __table_args__ = (
        Index(None, "owner_id", "revision"),
        _live_index(),
        _live_index("type"),
        _live_index("instrument_type"),
        _live_index("figi"),
        Index(None, "deleted_at", sqlite_where=_DELETED, postgresql_where=_DELETED),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    owner_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    created_at: datetime = Field(default_factory=utcnow)
    updated_at: datetime = Field(default_factory=utcnow)
    revision: int = Field(sa_type=BigInteger)
    deleted_at: datetime | None = None


class IdempotencyKey(SQLModel, table=True):
    """The answer to a request that may be sent again: `answer` is {"headers": …, "body": …}."""

    __tablename__ = "idempotency_key"
    __table_args__ = (UniqueConstraint("owner_id", "key"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    owner_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    key: str = Field(max_length=255)
    fingerprint: str = Field(max_length=64)
    status: int
    answer: dict[str, Any] = Field(sa_type=JSON)
    created_at: datetime = Field(default_factory=utcnow, index=True)


class OperationCreate(Body, OperationBase):
    pass


class OperationUpdate(Body):
    """What is left out stays."""

    type: Kind | MISSING = Field(default=MISSING)
    instrument_type: Instrument | MISSING | None = Field(default=MISSING)
    figi: Figi | MISSING = Field(default=MISSING)
    quantity: Amount | MISSING = Field(default=MISSING)
    date: Moment | MISSING = Field(default=MISSING)


class OperationPublic(OperationBase):
    id: int
    owner_id: UUID
    created_at: datetime
    updated_at: datetime
    revision: int


class Tombstone(SQLModel):
    """What is left of a deleted operation."""

    id: int
    revision: int
    deleted_at: datetime


class Changes(SQLModel):
    """In the order of their revisions. `next` is the `since` of the next request."""

    changes: list[OperationPublic | Tombstone]
    next: int
    more: bool


class Total(SQLModel):
    """`month` is in UTC, such as "2023-10"."""

    type: str
    instrument_type: str | None
    month: str
    count: int
    quantity: Amount


class Imported(SQLModel):
    """How many operations there are now that were not there, and the revision of the last one."""

    created: int
    revision: int

"""Operations: the ledger's rows, the schemas of its API, periods, and the responses stored for idempotency keys."""

from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import MISSING, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from sqlmodel import JSON, BigInteger, Field, Index, SQLModel, UniqueConstraint, bindparam, col

from app.core.dialects import ExactDecimal
from app.core.etags import etag
from app.models.base import MAX_ID, MAX_PAGE, BigId, Body, Id, described, partial_index, utcnow
from app.models.types import Amount, Bound, Timestamp, UtcTime, line, text_schema

MAX_TEXT = 50

OperationType = Annotated[str, *line(MAX_TEXT, "sell", "What was done, such as sell.", lower=True)]
InstrumentType = Annotated[str, *line(MAX_TEXT, "btc", "The instrument's type, such as btc.", lower=True)]
Figi = Annotated[str, *line(MAX_TEXT, "BBG000B9XRY4", "The instrument's identifier.")]

Revision = Annotated[int, described("The owner's revision that changed it last.", 12)]
Position = Annotated[Revision, Field(ge=0, le=MAX_ID)]
Count = Annotated[int, described("The number of operations.", 3)]

_DATE = "When it was done."
_OWNER = "The account that it belongs to."
_CREATED = "When it was recorded."
_UPDATED = "When it was last changed."


def _list_index(*filters: str) -> Index:
    """An index for a list: the columns that it filters by, then its order. Tombstones are left out."""
    return partial_index("deleted_at IS NULL", "owner_id", *filters, "date", "id")


class OperationBase(SQLModel):
    type: OperationType = Field(max_length=MAX_TEXT)
    instrument_type: InstrumentType | None = Field(default=None, max_length=MAX_TEXT)
    figi: Figi = Field(max_length=MAX_TEXT)
    quantity: Amount = Field(sa_type=ExactDecimal)
    date: Timestamp = Field(description=_DATE)


class Operation(OperationBase, table=True):
    """An operation of the ledger. `revision` is the owner's revision that last changed it, negative while an import
    stages it. A row with `deleted_at` is a tombstone."""

    __table_args__ = (
        Index(None, "owner_id", "revision"),
        _list_index(),
        _list_index("type"),
        _list_index("instrument_type"),
        _list_index("figi"),
        partial_index("deleted_at IS NOT NULL", "deleted_at"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    owner_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    created_at: UtcTime = Field(default_factory=utcnow)
    updated_at: UtcTime = Field(default_factory=utcnow)
    revision: int = Field(sa_type=BigInteger)
    deleted_at: UtcTime | None = None


class OperationCreate(Body, OperationBase):
    pass


class PartialOperation(SQLModel):
    """The fields of an operation, any of which may be missing."""

    type: OperationType | MISSING = Field(default=MISSING)
    instrument_type: InstrumentType | MISSING | None = Field(default=MISSING)
    figi: Figi | MISSING = Field(default=MISSING)
    quantity: Amount | MISSING = Field(default=MISSING)
    date: Timestamp | MISSING = Field(default=MISSING, description=_DATE)


class OperationUpdate(Body, PartialOperation):
    """Fields that are left out keep their values."""


class OperationPublic(OperationBase):
    id: Id
    owner_id: UUID = Field(description=_OWNER)
    created_at: UtcTime = Field(description=_CREATED)
    updated_at: UtcTime = Field(description=_UPDATED)
    revision: Revision

    @property
    def etag(self) -> str:
        return etag(self.owner_id, self.revision)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """The operation of a row that has every field. Nothing is validated again.

        Pydantic's model_construct() also handles rows that lack fields, and takes eight times as long.
        """
        operation = object.__new__(cls)
        object.__setattr__(operation, "__dict__", row)
        object.__setattr__(operation, "__pydantic_fields_set__", _PUBLIC_FIELDS)
        object.__setattr__(operation, "__pydantic_extra__", None)
        object.__setattr__(operation, "__pydantic_private__", None)
        return operation


# One set for all operations, never changed: a set for each takes longer.
_PUBLIC_FIELDS = set(OperationPublic.model_fields)


class Change(PartialOperation):
    """A changed operation with all its fields as they are now or, if it was deleted, `deleted_at` instead of them."""

    id: Id
    revision: Revision
    deleted_at: UtcTime | MISSING = Field(default=MISSING, description="When it was deleted; absent while it exists.")
    owner_id: UUID | MISSING = Field(default=MISSING, description=_OWNER)
    created_at: UtcTime | MISSING = Field(default=MISSING, description=_CREATED)
    updated_at: UtcTime | MISSING = Field(default=MISSING, description=_UPDATED)


class Changes(SQLModel):
    """Changes in the order of their revisions."""

    changes: list[Change] = Field(description="Apply them in this order.")
    next: Revision = Field(description="The `since` of the next request.")
    more: bool = Field(description="Whether there are more changes already.")


_BOUND = "A date and time with an offset, or a day (its first moment in UTC)"
_DAY = timedelta(days=1)
_SECOND_DAY = datetime.min.replace(tzinfo=UTC) + _DAY  # an earlier end has no day before it


class Period(SQLModel):
    """A period of operations: the parameters `from` and `to`, and the words in which documents and pages name it."""

    since: Bound | None = Field(default=None, alias="from", description=f"{_BOUND}, inclusive.")
    until: Bound | None = described(f"{_BOUND}, exclusive. Later than `from`.", "2023-11-01", default=None, alias="to")

    @field_validator("until")
    @classmethod
    def _is_later(cls, until: datetime | None, info: ValidationInfo) -> datetime | None:
        since = info.data.get("since")
        if since and until and until <= since:
            raise PydanticCustomError("period_backwards", "Choose an end after the start.")
        return until

    def in_words(self) -> str:
        """The period as a person would say it, in UTC. It ends with its last day: before February 1 is January."""
        style, back = self._style()
        start = self.since and self.since.strftime(style)
        end = self.until and (max(self.until, _SECOND_DAY) - back).strftime(style)
        if start and end:
            return start if start == end else f"{start} to {end}"
        return f"From {start}" if start else f"Until {end}" if end else "Everything"

    def _style(self) -> tuple[str, timedelta]:
        """The shortest format that is exact for these bounds, and how far before the end the last day is."""
        bounds = [bound for bound in (self.since, self.until) if bound]
        if any(bound.time() != time() for bound in bounds):
            return "%B %-d, %Y, %H:%M", timedelta()
        if any(bound.day > 1 for bound in bounds):
            return "%B %-d, %Y", _DAY
        return ("%B %Y" if any(bound.month > 1 for bound in bounds) else "%Y"), _DAY


class OperationFilter(Period):
    """The query parameters that select the operations of a list."""

    type: OperationType | None = Field(default=None, description="Only operations of this type, in any case.")
    instrument_type: InstrumentType | None = Field(
        default=None, description="Only operations of this type of instrument, in any case."
    )
    figi: Figi | None = Field(default=None, description="Only operations of this instrument.")


# The condition of each filter, whose parameter has the same name. A statement is built once for each combination of
# them: see app/ledger/operations.py.
FILTERS = {
    "type": col(Operation.type) == bindparam("type"),
    "instrument_type": col(Operation.instrument_type) == bindparam("instrument_type"),
    "figi": col(Operation.figi) == bindparam("figi"),
    "since": col(Operation.date) >= bindparam("since"),
    "until": col(Operation.date) < bindparam("until"),
}


class ChangesQuery(SQLModel):
    """How much a client's copy holds: every change up to the revision `since`, or the first part of a new copy."""

    since: Position = Field(default=0, description="The revision of your copy; 0 if it is empty.")
    limit: int = Field(default=50, ge=1, le=MAX_PAGE, description="The maximum number of changes.")
    full: bool = described("Send true with every request that fills an empty copy.", True, default=False)
    began: Position | None = Field(
        default=None, description="The revision at which filling began, from the Link header."
    )

    @property
    def fills(self) -> bool:
        return self.full or self.since == 0

    def known_up_to(self, revision: int) -> int:
        """The revision up to which no purge can hide a deletion from this client; the owner is at `revision` now.

        A copy that is up to date with `since` may still hold operations that were deleted after it. A copy that is
        being filled may hold operations that were deleted after the filling began.
        """
        if not self.fills:
            return self.since
        if self.since == 0:
            return revision
        return MAX_ID if self.began is None else self.began


class Total(SQLModel):
    """The operations of one type, instrument type and month."""

    type: OperationType
    instrument_type: InstrumentType | None
    month: str = described("The month in UTC.", "2023-10")
    count: Count
    quantity: Annotated[Amount, text_schema("Their exact total.", "10")]


class Imported(SQLModel):
    """The result of an import."""

    created: Count = Field(description="How many operations were created.")
    revision: Revision = Field(description="The revision of the last one.")


class IdempotencyKey(SQLModel, table=True):
    """The response to a request that may be repeated. `status`, and the headers in `answer`, are for
    processes of the release before."""

    __tablename__ = "idempotency_key"
    __table_args__ = (UniqueConstraint("owner_id", "key"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    owner_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    key: str = Field(max_length=255)
    fingerprint: str = Field(max_length=64)
    status: int = 201
    answer: dict[str, Any] = Field(sa_type=JSON)
    created_at: UtcTime = Field(default_factory=utcnow, index=True)

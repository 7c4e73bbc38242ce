"""Jobs: what is to be done after the answer, how far it is, and what came of it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
from sqlalchemy import JSON, CheckConstraint, Index, LargeBinary, text
from sqlmodel import Field, SQLModel, UniqueConstraint

from app.models.base import Body, utcnow, uuid7
from app.models.types import Bound

State = Literal["waiting", "running", "done", "failed", "cancelled"]
UNENDED = ("waiting", "running")
# What people start, watch and cancel themselves. The other kinds are the service's own.
ASKED_FOR = ("statement",)


def _one_of(column: str, *values: str) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(map(repr, values))})", name=column)


class JobBase(SQLModel):
    id: UUID = Field(default_factory=uuid7, primary_key=True)
    kind: str = Field(max_length=20)
    queue: str = Field(max_length=20)
    state: str = Field(default="waiting", max_length=20)
    progress: float = Field(default=0.0, description="0 to 1.", schema_extra={"examples": [0.5]})
    attempts: int = Field(default=0, description="How often it was begun.", schema_extra={"examples": [1]})
    error: str | None = Field(
        default=None,
        max_length=200,
        description="Why the last attempt failed.",
        schema_extra={"examples": ["The attempt failed. The ticket 1f0c3ba5d27e names the log line."]},
    )
    owner_id: UUID | None = Field(default=None, foreign_key="user.id", ondelete="CASCADE")
    created_at: datetime = Field(default_factory=utcnow)
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Job(JobBase, table=True):
    """`name` is what may be there only once. `sent_at`: the engine has it. `result` is a zip archive of files."""

    __table_args__ = (
        UniqueConstraint("name"),
        _one_of("kind", "mail", "statement", "purge"),
        _one_of("queue", "high", "default"),
        _one_of("state", "waiting", "running", "done", "failed", "cancelled"),
        Index(None, "owner_id", "id"),
        Index(None, "finished_at"),
        Index(
            None,
            "state",
            "due_at",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    name: str | None = Field(default=None, max_length=50)
    arguments: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    due_at: datetime = Field(default_factory=utcnow)
    sent_at: datetime | None = None
    heartbeat_at: datetime | None = None
    result: bytes | None = Field(default=None, sa_type=LargeBinary)


class JobPublic(JobBase):
    kind: Literal["mail", "statement", "purge"]
    queue: Literal["high", "default"]
    state: State
    result: str | None = Field(
        description="Where the result is, once there is one.",
        schema_extra={"examples": ["/api/jobs/01935b0e-7c1a-7000-8000-0123456789ab/result"]},
    )


class StatementCreate(Body):
    """The period: `from` inclusive, `to` exclusive; without them, all there is."""

    since: Annotated[Bound | None, pydantic.Field(alias="from", description="Inclusive: a time, or a day in UTC.")] = (
        None
    )
    until: Annotated[Bound | None, pydantic.Field(alias="to", description="Exclusive.")] = None
    mail: Annotated[bool, pydantic.Field(strict=True, description="Also send it to your address.")] = False

"""Tasks: who asked, who does it, and how it went from one to the next."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import MISSING, AfterValidator, StringConstraints, WithJsonSchema
from pydantic import Field as Limits
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from app.models.base import BigId, Body, utcnow
from app.models.types import PLAIN, WORDS, one_form

Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PLAIN),
    AfterValidator(partial(one_form, max_length=200)),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 200, "pattern": WORDS}),
]
Closed = Annotated[bool, Limits(strict=True, description="true closes the task, false opens it again.")]
_NULL = "null: nobody."
_OPEN = text("closed_at IS NULL")


class TaskBase(SQLModel):
    title: Title = Field(max_length=200, schema_extra={"examples": ["Water the plants"]})
    assignee_id: UUID | None = Field(default=None, description=f"An active user, see `/tasks/assignees`; {_NULL}")


class Task(TaskBase, table=True):
    # Each list is newest first, so each index ends with the id; they serve the foreign keys too.
    __table_args__ = (
        Index(None, "author_id", "id"),
        Index(None, "assignee_id", "id"),
        Index(None, "id", postgresql_where=_OPEN, sqlite_where=_OPEN),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    author_id: UUID | None = Field(default=None, foreign_key="user.id", ondelete="SET NULL")
    assignee_id: UUID | None = Field(default=None, foreign_key="user.id", ondelete="SET NULL")
    created_at: datetime = Field(default_factory=utcnow)
    closed_at: datetime | None = None

    def may_be_edited_by(self, user_id: UUID) -> bool:
        return user_id in (self.author_id, self.assignee_id)

    def may_be_deleted_by(self, user_id: UUID, *, administers: bool) -> bool:
        """Its author; once the author's account is deleted, its assignee or somebody who administers accounts."""
        if self.author_id is not None:
            return user_id == self.author_id
        return administers or user_id == self.assignee_id

    def changes(self, wanted: dict[str, Any], now: datetime) -> dict[str, Any]:
        """What of a TaskUpdate is not so already. Closing what is closed keeps its time."""
        fields = {field: value for field, value in wanted.items() if field != "closed"}
        is_closed = self.closed_at is not None
        if wanted.get("closed", is_closed) != is_closed:
            fields["closed_at"] = None if is_closed else now
        return {field: value for field, value in fields.items() if value != getattr(self, field)}


class TaskCreate(Body, TaskBase):
    pass


class TaskUpdate(Body):
    title: Title | MISSING = Field(default=MISSING)
    assignee_id: UUID | MISSING | None = Field(default=MISSING, description=f"An active user; {_NULL}")
    closed: Closed | MISSING = Field(default=MISSING)


class TaskPublic(TaskBase):
    id: int
    author_id: UUID | None = Field(description="null: the account is deleted.")
    created_at: datetime
    closed_at: datetime | None = Field(description="null while the task is open.")


class TaskHistoryBase(SQLModel):
    changed_by: UUID | None = Field(default=None, foreign_key="user.id", ondelete="SET NULL", index=True)
    previous_assignee_id: UUID | None = Field(default=None, foreign_key="user.id", ondelete="SET NULL", index=True)
    new_assignee_id: UUID | None = Field(default=None, foreign_key="user.id", ondelete="SET NULL", index=True)
    changed_at: datetime


class TaskHistory(TaskHistoryBase, table=True):
    """A chain: who is the previous one of a row is the new one of the row before."""

    __tablename__ = "task_history"
    __table_args__ = (Index(None, "task_id", "id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    task_id: int = Field(foreign_key="task.id", ondelete="CASCADE", sa_type=BigId)


class TaskHistoryPublic(TaskHistoryBase):
    id: int


class AssigneePublic(SQLModel):
    id: UUID
    name: str | None

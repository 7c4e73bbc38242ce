"""Tasks: the rules for changing them, and the history of their assignees."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import MISSING, StrictBool
from sqlalchemy import ColumnElement
from sqlmodel import Field, Index, SQLModel, col

from app.models.base import BigId, Body, Id, equal, partial_index, utcnow
from app.models.types import UtcTime, line

Title = Annotated[str, *line(200, "Water the plants", "What is to be done.")]
_ASSIGNEE = "An active user, see `/tasks/assignees`; null: nobody is assigned."


class TaskBase(SQLModel):
    title: Title = Field(max_length=200)
    assignee_id: UUID | None = Field(default=None, foreign_key="user.id", ondelete="SET NULL", description=_ASSIGNEE)


class Task(TaskBase, table=True):
    # Every list is sorted by id, so every index ends with it. The indexes serve the foreign keys too.
    __table_args__ = (
        Index(None, "author_id", "id"),
        Index(None, "assignee_id", "id"),
        partial_index("closed_at IS NULL", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    author_id: UUID | None = Field(default=None, foreign_key="user.id", ondelete="SET NULL")
    created_at: UtcTime = Field(default_factory=utcnow)
    closed_at: UtcTime | None = None

    def may_be_edited_by(self, user_id: UUID) -> bool:
        return user_id in (self.author_id, self.assignee_id)

    def may_be_deleted_by(self, user_id: UUID, *, is_admin: bool) -> bool:
        """Its author may delete it; once the author's account is deleted, its assignee and admins may."""
        if self.author_id is not None:
            return user_id == self.author_id
        return is_admin or user_id == self.assignee_id

    def changes(self, requested: dict[str, Any], now: datetime) -> dict[str, Any]:
        """The fields of a TaskUpdate that differ. Closing a task that is closed keeps the time it was closed at."""
        fields = {field: value for field, value in requested.items() if field != "closed"}
        is_closed = self.closed_at is not None
        if requested.get("closed", is_closed) != is_closed:
            fields["closed_at"] = None if is_closed else now
        return {field: value for field, value in fields.items() if value != getattr(self, field)}


class TaskCreate(Body, TaskBase):
    pass


class TaskUpdate(Body):
    title: Title | MISSING = Field(default=MISSING)
    assignee_id: UUID | MISSING | None = Field(default=MISSING, description=_ASSIGNEE)
    closed: StrictBool | MISSING = Field(default=MISSING, description="true closes the task, false opens it again.")


class TaskPublic(TaskBase):
    id: Id
    author_id: UUID | None = Field(description="null if the author's account was deleted.")
    created_at: UtcTime = Field(description="When it was created.")
    closed_at: UtcTime | None = Field(description="null while the task is open.")


class TaskFilter(SQLModel):
    """The query parameters that select the tasks of a list."""

    author_id: UUID | None = Field(default=None, alias="author", description="Only tasks that this user wrote.")
    assignee_id: UUID | None = Field(default=None, alias="assignee", description="Only tasks assigned to this user.")
    is_open: bool | None = Field(default=None, alias="open", description="true: only open tasks; false: only closed.")

    def conditions(self) -> list[ColumnElement[bool]]:
        conditions = equal(Task, self)
        if self.is_open is not None:
            conditions.append(col(Task.closed_at).is_(None) if self.is_open else col(Task.closed_at).is_not(None))
        return conditions


def _person(description: str) -> Any:
    return Field(default=None, foreign_key="user.id", ondelete="SET NULL", index=True, description=description)


class TaskHistoryBase(SQLModel):
    changed_by: UUID | None = _person("Who changed the assignee; null if the account was deleted.")
    previous_assignee_id: UUID | None = _person("Who had the task before; null: nobody, or a deleted account.")
    new_assignee_id: UUID | None = _person("Who has had it since; null: nobody, or a deleted account.")
    changed_at: UtcTime = Field(default_factory=utcnow, description="When it was changed.")


class TaskHistory(TaskHistoryBase, table=True):
    """Changes of a task's assignee: the previous assignee of each row is the new one of the row before it."""

    __tablename__ = "task_history"
    __table_args__ = (Index(None, "task_id", "id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    task_id: int | None = Field(default=None, foreign_key="task.id", ondelete="CASCADE", nullable=False, sa_type=BigId)


class TaskHistoryPublic(TaskHistoryBase):
    id: Id

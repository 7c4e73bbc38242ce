"""Tasks: everybody with the scope reads them, their author and assignee change them, and a history lists assignees."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response
from sqlmodel import Session, col, select

from app.core.errors import AppError, Invalid, InvalidToken, NotFound, found
from app.dependencies import PageDep, RowId, SessionDep, requires
from app.http.openapi import located, problems
from app.http.routing import Router
from app.models.base import utcnow
from app.models.task import Task, TaskCreate, TaskFilter, TaskHistory, TaskHistoryPublic, TaskPublic, TaskUpdate
from app.models.user import AssigneePublic, User
from app.oauth2.resource_server import Caller

router = Router(prefix="/api/tasks", tags=["tasks"])


class TaskNotFound(NotFound, title="No such task"):
    """There is no task with this id."""


class NotYourTask(AppError, status=403, title="You may not change this task"):
    """Only the author and the assignee of a task may change it."""


READ = [requires("tasks")]
Me = Annotated[Caller, requires("tasks")]
# The body that Swagger UI suggests. Without this, it would make up an assignee.
SUGGESTED = {"requestBody": {"content": {"application/json": {"example": {"title": "Water the plants"}}}}}
NOT_FOUND, NOT_YOURS = problems(TaskNotFound), problems(TaskNotFound, NotYourTask)


@router.get("", dependencies=READ)
def list_tasks(session: SessionDep, page: PageDep, filters: Annotated[TaskFilter, Query()]) -> list[TaskPublic]:
    """Everybody's tasks, newest first."""
    tasks = session.exec(page.of(select(Task).where(*filters.conditions()), col(Task.id), newest_first=True))
    return [TaskPublic.model_validate(task) for task in page.cut(tasks)]


@router.post("", status_code=201, responses=located("/api/tasks/7"), openapi_extra=SUGGESTED)
def create_task(body: TaskCreate, me: Me, session: SessionDep, response: Response) -> TaskPublic:
    """Create a task; you are its author for good. If it has an assignee, that is the first entry of its history."""
    active = _lock_people(session, me, body.assignee_id)
    _check_assignee(body.assignee_id, active)
    task = Task.model_validate(body, update={"author_id": me.user_id})
    session.add(task)
    session.flush()  # generates the id
    _record(session, task, me.user_id, previous=None)
    response.headers["Location"] = f"/api/tasks/{task.id}"
    return TaskPublic.model_validate(task)


# Before /{task_id}, which would take "assignees" for an id.
@router.get("/assignees", dependencies=READ)
def list_assignees(session: SessionDep, page: PageDep) -> list[AssigneePublic]:
    """Users to whom a task can be assigned: all active accounts, oldest first."""
    people = session.exec(page.of(select(User).where(User.is_active), col(User.id)))
    return [AssigneePublic.model_validate(person) for person in page.cut(people)]


@router.get("/{task_id}", dependencies=READ, responses=NOT_FOUND)
def read_task(task_id: RowId, session: SessionDep) -> TaskPublic:
    """The task with this id."""
    return TaskPublic.model_validate(found(session.get(Task, task_id), TaskNotFound))


@router.patch("/{task_id}", responses=NOT_YOURS, openapi_extra=SUGGESTED)
def update_task(task_id: RowId, body: TaskUpdate, me: Me, session: SessionDep) -> TaskPublic:
    """Change the fields that are sent, as author or assignee. `closed` sets or clears `closed_at`; `assignee_id` null
    unassigns. Values that do not differ change nothing and leave no entry in the history."""
    requested = body.model_dump()
    active = _lock_people(session, me, requested.get("assignee_id"), task_id)
    task = _locked(session, task_id)
    if not task.may_be_edited_by(me.user_id):
        raise NotYourTask
    changes, previous = task.changes(requested, utcnow()), task.assignee_id
    _check_assignee(changes.get("assignee_id"), active)
    task.sqlmodel_update(changes)
    session.add(task)
    _record(session, task, me.user_id, previous=previous)
    return TaskPublic.model_validate(task)


@router.delete("/{task_id}", status_code=204, responses=NOT_YOURS)
def delete_task(task_id: RowId, me: Me, session: SessionDep) -> None:
    """Delete a task that you wrote, and its history. Once the author's account is deleted, its assignee may delete
    it, and so may callers with the scope `users:write`."""
    task = _locked(session, task_id)
    if not task.may_be_deleted_by(me.user_id, is_admin="users:write" in me.scopes):
        raise NotYourTask("Only the author of a task can delete it.")
    session.delete(task)


@router.get("/{task_id}/history", dependencies=READ, responses=NOT_FOUND)
def list_task_history(task_id: RowId, session: SessionDep, page: PageDep) -> list[TaskHistoryPublic]:
    """The changes of the task's assignee, oldest first."""
    found(session.get(Task, task_id), TaskNotFound)
    changes = session.exec(page.of(select(TaskHistory).where(TaskHistory.task_id == task_id), col(TaskHistory.id)))
    return [TaskHistoryPublic.model_validate(change) for change in page.cut(changes)]


def _lock_people(session: Session, me: Caller, assignee_id: UUID | None, task_id: int | None = None) -> set[UUID]:
    """Keep the users that the change refers to from being deleted before the commit. Returns those who are active.

    They are locked before the task is, in the order in which deleting an account locks its user and then its tasks.
    The present assignee is among them, because the history will refer to that user too.
    """
    present = select(Task.assignee_id).where(Task.id == task_id).scalar_subquery()
    concerned = col(User.id).in_([me.user_id, assignee_id]) | (col(User.id) == present)
    statement = select(User.id, User.is_active).where(concerned).order_by(col(User.id))
    people = dict(session.exec(statement.with_for_update(read=True, key_share=True)).all())
    if me.user_id not in people:
        raise InvalidToken  # the account was deleted after the request was authenticated
    return {user_id for user_id, is_active in people.items() if is_active}


def _locked(session: Session, task_id: int) -> Task:
    """The task, locked until the commit, so that concurrent changes follow each other."""
    return found(session.get(Task, task_id, with_for_update={"key_share": True}), TaskNotFound)


def _check_assignee(assignee_id: UUID | None, active: set[UUID]) -> None:
    if assignee_id is not None and assignee_id not in active:
        raise Invalid.at("body", "assignee_id", message="There is no active user with this id.")


def _record(session: Session, task: Task, by: UUID, *, previous: UUID | None) -> None:
    """Add an entry to the history of the task if its assignee has changed."""
    new = task.assignee_id
    if new != previous:
        session.add(TaskHistory(task_id=task.id, changed_by=by, previous_assignee_id=previous, new_assignee_id=new))

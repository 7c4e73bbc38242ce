"""Tasks: everybody sees them, author and assignee change them, and each change of assignee is on record."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response
from sqlalchemy import and_, insert, select
from sqlmodel import Session, col

from app.core.errors import Invalid, InvalidToken, NotYourTask, TaskNotFound
from app.dependencies import PageDep, RowId, SessionDep, requires
from app.http.openapi import CREATED, problems
from app.http.routing import Router
from app.models.base import utcnow
from app.models.task import (
    AssigneePublic,
    Task,
    TaskCreate,
    TaskHistory,
    TaskHistoryPublic,
    TaskPublic,
    TaskUpdate,
)
from app.models.user import User
from app.oauth2.authorization_server import Caller

router = Router("/api/tasks", tags=["tasks"])

ANYBODY = [requires("tasks")]
Me = Annotated[Caller, requires("tasks")]


@router.get("", dependencies=ANYBODY)
def list_tasks(
    session: SessionDep,
    page: PageDep,
    author: Annotated[UUID | None, Query(description="The tasks that this user wrote.")] = None,
    assignee: Annotated[UUID | None, Query(description="The tasks that this user is to do.")] = None,
    is_open: Annotated[bool | None, Query(alias="open", description="true: not closed; false: closed.")] = None,
) -> list[TaskPublic]:
    """Everybody's tasks, the newest first."""
    found = select(Task).order_by(col(Task.id).desc()).limit(page.limit + 1)
    if page.position:
        found = found.where(col(Task.id) < int(page.position[0]))
    for column, wanted in ((Task.author_id, author), (Task.assignee_id, assignee)):
        if wanted is not None:
            found = found.where(col(column) == wanted)
    if is_open is not None:
        found = found.where(col(Task.closed_at).is_(None) if is_open else col(Task.closed_at).is_not(None))
    tasks = page.cut(session.scalars(found).all(), lambda task: [str(task.id)])
    return [TaskPublic.model_validate(task) for task in tasks]


@router.post("", status_code=201, responses=CREATED)
def create_task(body: TaskCreate, me: Me, session: SessionDep, response: Response) -> TaskPublic:
    """Write a task; you are its author for good. An assignee at once is the first entry of its history."""
    active = _hold_people(session, me, body.assignee_id)
    _check_assignee(body.assignee_id, active)
    task = Task.model_validate(body, update={"author_id": me.user_id})
    session.add(task)
    session.flush()
    if task.assignee_id is not None:
        _record(session, task, me, previous=None)
    response.headers["Location"] = f"/api/tasks/{task.id}"
    return TaskPublic.model_validate(task)


# Before /{task_id}, which would take it for an id.
@router.get("/assignees", dependencies=ANYBODY)
def list_assignees(session: SessionDep, page: PageDep) -> list[AssigneePublic]:
    """Who a task can be given to: all active accounts, the oldest first."""
    found = select(col(User.id), col(User.name)).where(col(User.is_active)).order_by(col(User.id))
    if page.position:
        found = found.where(col(User.id) > UUID(page.position[0]))
    people = session.connection().execute(found.limit(page.limit + 1)).all()
    return [AssigneePublic(**person._asdict()) for person in page.cut(people, lambda person: [str(person.id)])]


@router.get("/{task_id}", dependencies=ANYBODY, responses=problems(TaskNotFound))
def read_task(task_id: RowId, session: SessionDep) -> TaskPublic:
    """The task with this id."""
    task = session.get(Task, task_id)
    if task is None:
        raise TaskNotFound
    return TaskPublic.model_validate(task)


@router.patch("/{task_id}", responses=problems(TaskNotFound, NotYourTask))
def update_task(task_id: RowId, body: TaskUpdate, me: Me, session: SessionDep) -> TaskPublic:
    """Change what is sent, as its author or assignee. `closed` sets or clears `closed_at`; `assignee_id` null
    unassigns. What is so already changes nothing and leaves no entry in the history."""
    wanted = body.model_dump()
    active = _hold_people(session, me, wanted.get("assignee_id"), task_id)
    task = _locked(session, task_id)
    if not task.may_be_edited_by(me.user_id):
        raise NotYourTask
    changes, previous = task.changes(wanted, utcnow()), task.assignee_id
    if "assignee_id" in changes:
        _check_assignee(changes["assignee_id"], active)
    task.sqlmodel_update(changes)
    session.add(task)
    session.flush()
    if "assignee_id" in changes:
        _record(session, task, me, previous=previous)
    return TaskPublic.model_validate(task)


@router.delete(
    "/{task_id}",
    status_code=204,
    responses=problems(TaskNotFound, NotYourTask),
)
def delete_task(task_id: RowId, me: Me, session: SessionDep) -> None:
    """Delete a task that you wrote, and its history. Once its author's account is deleted its assignee may do so, and
    whoever has the scope `users:write`."""
    task = _locked(session, task_id)
    if not task.may_be_deleted_by(me.user_id, administers="users:write" in me.scopes):
        raise NotYourTask("Only its author deletes a task.")
    session.delete(task)
    session.flush()


@router.get("/{task_id}/history", dependencies=ANYBODY, responses=problems(TaskNotFound))
def list_task_history(task_id: RowId, session: SessionDep, page: PageDep) -> list[TaskHistoryPublic]:
    """Who gave the task to whom, the oldest change first."""
    of_task = col(TaskHistory.task_id) == col(Task.id)
    if page.position:
        of_task = and_(of_task, col(TaskHistory.id) > int(page.position[0]))
    columns = [col(getattr(TaskHistory, name)) for name in TaskHistoryPublic.model_fields]
    found = select(*columns).select_from(Task).outerjoin(TaskHistory, of_task).where(col(Task.id) == task_id)
    rows = session.connection().execute(found.order_by(col(TaskHistory.id)).limit(page.limit + 1)).all()
    if not rows:
        raise TaskNotFound  # a task without a history is one empty row
    changes = page.cut([row for row in rows if row.id is not None], lambda row: [str(row.id)])
    return [TaskHistoryPublic(**change._asdict()) for change in changes]


def _hold_people(session: Session, me: Caller, assignee_id: UUID | None, task_id: int | None = None) -> set[UUID]:
    """Keep whom the change refers to from being deleted until the commit; those of them who are active.

    Before the task is locked: whoever deletes an account locks it first too, and its tasks afterwards. That is why
    the present assignee, whom the history will name, is among them.
    """
    present = select(col(Task.assignee_id)).where(col(Task.id) == task_id).scalar_subquery()
    wanted = (col(User.id).in_([me.user_id, assignee_id])) | (col(User.id) == present)
    people = select(col(User.id), col(User.is_active)).where(wanted).order_by(col(User.id))
    found = session.connection().execute(people.with_for_update(read=True, key_share=True)).all()
    if me.user_id not in {person.id for person in found}:
        raise InvalidToken  # the account was deleted just now
    return {person.id for person in found if person.is_active}


def _locked(session: Session, task_id: int) -> Task:
    """The task as it is, and stays until the commit: two changes follow each other. SQLite has one writer anyway."""
    task = session.get(Task, task_id, with_for_update={"key_share": True})
    if task is None:
        raise TaskNotFound
    return task


def _check_assignee(assignee_id: UUID | None, active: set[UUID]) -> None:
    if assignee_id is not None and assignee_id not in active:
        raise Invalid.at("body", "assignee_id", message="There is no active user with this id.")


def _record(session: Session, task: Task, me: Caller, *, previous: UUID | None) -> None:
    change = insert(TaskHistory).values(
        task_id=task.id,
        changed_by=me.user_id,
        previous_assignee_id=previous,
        new_assignee_id=task.assignee_id,
        changed_at=utcnow(),
    )
    session.connection().execute(change)

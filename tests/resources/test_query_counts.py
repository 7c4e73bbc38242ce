"""The cost of a list: one or two statements besides authentication, for any number of rows, and no scan of a table."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import and_, select, text
from sqlmodel import Session, col

from app.dependencies import Page
from app.ledger.operations import owners_of_tombstones
from app.models.audit import AuditFilter
from app.models.job import JobFilter
from app.models.task import TaskFilter
from app.models.user import User, UserFilter
from app.routers.audit import list_audit_events, list_my_audit_events
from app.routers.heroes import list_heroes, list_teams
from app.routers.jobs import list_jobs
from app.routers.tasks import list_task_history, list_tasks
from tests.support.plans import ListPage, plans
from tests.support.resources import call, new_hero, new_task, new_team
from tests.support.servers import Muster, Tokens

AUTHENTICATION = 1

LISTS = [
    *("/jobs", "/jobs?limit=1", "/users?search=a&role=admin", "/audit?user_id={me}", "/users/me/audit?limit=1"),
    *("/heroes", "/heroes?limit=1", "/heroes/{hero}", "/heroes/{hero}/teams", "/heroes/{alone}/teams"),
    *("/teams", "/teams/{team}", "/teams/{team}/heroes"),
    *("/tasks", "/tasks?author={me}&assignee={me}&open=true", "/tasks/{task}", "/tasks/assignees"),
    *("/tasks/{task}/history", "/tasks/{quiet}/history"),
]


@pytest.fixture(scope="module")
def admin(counting: Muster) -> Tokens:
    tokens = counting.admin().tokens()
    counting.me(tokens)  # the first use of a token confirms it
    return tokens


@pytest.fixture(scope="module")
def names(counting: Muster, admin: Tokens) -> dict[str, object]:
    """The ids of some rows of each kind, by their names in the paths of LISTS."""
    ids: dict[str, object] = {}
    ids["me"] = counting.me(admin).json()["id"]
    heroes, teams = [new_hero(counting, admin) for _ in range(4)], [new_team(counting, admin) for _ in range(4)]
    for hero in heroes[:3]:
        for team in teams[:3]:
            call(counting, admin, "PUT", f"/heroes/{hero['id']}/teams/{team['id']}")
    ids |= {"hero": heroes[0]["id"], "alone": heroes[3]["id"], "team": teams[0]["id"]}
    tasks = [new_task(counting, admin, assignee_id=ids["me"]) for _ in range(3)]
    call(counting, admin, "PATCH", f"/tasks/{tasks[0]['id']}", {"assignee_id": None})
    ids |= {"task": tasks[0]["id"], "quiet": new_task(counting, admin)["id"]}
    return ids


# These look up the people of the events, or whose list it is, in a statement of their own.
TWO_STATEMENTS = {"/audit?user_id={me}", "/tasks/{task}/history", "/tasks/{quiet}/history"}
TWO_STATEMENTS |= {"/heroes/{hero}/teams", "/heroes/{alone}/teams", "/teams/{team}/heroes"}


@pytest.mark.parametrize("path", LISTS)
def test_a_read_is_one_statement_besides_authentication(
    counting: Muster, admin: Tokens, names: dict[str, object], path: str
) -> None:
    answer = call(counting, admin, "GET", path.format(**names))
    assert answer.status_code == 200
    assert "MATERIALIZE" not in answer.headers["plans"]  # SQLite: tables that are joined as a whole, whatever is read
    assert int(answer.headers["statements"]) == AUTHENTICATION + 1 + (path in TWO_STATEMENTS)


@pytest.mark.parametrize("path", ["forgot-password", "request-verification"])
def test_a_mail_by_address_takes_the_same_statements_whether_or_not_there_is_an_account(
    counting: Muster, path: str
) -> None:
    known, unknown = counting.new_account().email, "nobody@example.com"
    answers = [counting.client.post(f"/api/auth/{path}", json={"email": email}) for email in (known, unknown)]
    assert {answer.status_code for answer in answers} == {202}
    assert answers[0].headers["statements"] == answers[1].headers["statements"]


@dataclass(frozen=True)
class List:
    """How a route reads a list, a position in it to continue after, and the index that the plan has to name."""

    read: Callable[[Session, Page, Any], object]
    position: str
    index: str


def by(**filters: object) -> TaskFilter:
    return TaskFilter.model_validate(filters)


AN_ID, A_UUID = str(10**9), "ffffffff-0000-7000-8000-000000000000"
# docs/extending.md removes a resource by its lines: here each list of a resource is one.
PLANS = {
    "heroes": List(lambda s, p, me: list_heroes(me, s, p), "a", "uq_hero_name|sqlite_autoindex_hero_1"),
    "teams": List(lambda s, p, _: list_teams(s, p), "a", "uq_team_name|sqlite_autoindex_team_1"),
    "tasks of an author": List(lambda s, p, me: list_tasks(s, p, by(author=me.user_id)), AN_ID, "ix_task_author_id_id"),
    "assigned tasks": List(lambda s, p, me: list_tasks(s, p, by(assignee=me.user_id)), AN_ID, "ix_task_assignee_id_id"),
    "open tasks": List(lambda s, p, _: list_tasks(s, p, by(open=True)), AN_ID, "ix_task_id"),
    "history of a task": List(lambda s, p, me: list_task_history(me.task, s, p), "0", "ix_task_history_task_id_id"),
    "own jobs": List(lambda session, page, me: list_jobs(me, session, page, JobFilter()), A_UUID, "ix_job_owner_id_id"),
    "audit events": List(
        lambda session, page, _: list_audit_events(AuditFilter(), session, page),
        A_UUID,
        "pk_audit_event|sqlite_autoindex_audit_event_1",
    ),
    "audit events of an account": List(
        lambda session, page, me: list_audit_events(AuditFilter(user_id=me.user_id), session, page),
        A_UUID,
        "ix_audit_event_user_id_id",
    ),
    "own audit events": List(
        lambda session, page, me: list_my_audit_events(me, session, page), A_UUID, "ix_audit_event_user_id_id"
    ),
    "audit events by an account": List(
        lambda session, page, me: list_audit_events(AuditFilter(actor_id=me.user_id), session, page),
        A_UUID,
        "ix_audit_event_actor_id_id",
    ),
    "audit events of a kind": List(
        lambda session, page, _: list_audit_events(AuditFilter(event="sign-in"), session, page),
        A_UUID,
        "ix_audit_event_event_id",
    ),
}


@pytest.mark.parametrize("is_continued", [False, True], ids=["first page", "continued"])
@pytest.mark.parametrize("listed", PLANS.values(), ids=PLANS)
def test_a_list_has_an_index_that_gives_its_order(
    counting: Muster, names: dict[str, object], listed: List, *, is_continued: bool
) -> None:
    me: Any = SimpleNamespace(user_id=UUID(str(names["me"])), scopes=frozenset({"jobs"}), **names)
    page = ListPage(listed.position if is_continued else None)
    with counting.engine.begin() as connection:
        if connection.dialect.name != "sqlite":
            # So few rows are read faster without an index: ask what could be done.
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_sort = off"))
        plan = "\n".join(plans(connection, lambda session: listed.read(session, page, me)))
    assert any(name in plan for name in listed.index.split("|")), plan
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan


def test_the_purge_finds_old_tombstones_by_an_index(counting: Muster) -> None:
    with counting.engine.begin() as connection:
        if connection.dialect.name != "sqlite":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        (plan,) = plans(connection, lambda session: owners_of_tombstones(session, datetime(2020, 1, 1, tzinfo=UTC)))
    assert "ix_operation_deleted_at" in plan, plan
    assert "SCAN" not in plan, plan


def test_a_search_of_accounts_uses_the_index_of_the_address_and_that_of_the_name(counting: Muster) -> None:
    conditions = and_(*UserFilter(search="Ada").conditions())
    with counting.engine.begin() as connection:
        on_sqlite = connection.dialect.name == "sqlite"
        statement = select(col(User.id)).where(conditions).order_by(col(User.id)).limit(51)
        query = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
        if not on_sqlite:
            for other in ("seqscan", "indexscan"):  # what leaves bitmaps: so few rows need none
                connection.execute(text(f"SET LOCAL enable_{other} = off"))
        explain = "EXPLAIN QUERY PLAN " if on_sqlite else "EXPLAIN "
        plan = "\n".join(map(str, connection.exec_driver_sql(explain + query)))
    assert "(email>? AND email<?)" in plan or "Bitmap Index Scan on uq_user_email" in plan, plan
    assert "ix_user_folded_name (folded_name>? AND" in plan or "Bitmap Index Scan on ix_user_folded_name" in plan, plan
    assert "SCAN" not in plan
    assert "Seq Scan" not in plan

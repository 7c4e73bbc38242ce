"""The cost of a list: one or two statements besides authentication, for any number of rows, and no scan of a table."""

import pytest
from sqlalchemy import and_, select, text
from sqlmodel import col

from app.models.user import User, UserFilter
from tests.support.resources import call, new_hero, new_task, new_team
from tests.support.servers import Muster, Tokens
from tests.support.sessions import connected

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


# The lists as SQL, each with what its plan has to name.
PLANS = {
    "SELECT name FROM hero WHERE name > 'a' ORDER BY name LIMIT 51": "uq_hero_name|sqlite_autoindex_hero_1",
    "SELECT name FROM team WHERE name > 'a' ORDER BY name LIMIT 51": "uq_team_name|sqlite_autoindex_team_1",
    "SELECT hero_id FROM hero_team_link WHERE team_id = 1": "ix_hero_team_link_team_id",
    "SELECT title FROM task WHERE author_id = :me ORDER BY id DESC LIMIT 51": "ix_task_author_id_id",
    "SELECT title FROM task WHERE assignee_id = :me ORDER BY id DESC LIMIT 51": "ix_task_assignee_id_id",
    "SELECT title FROM task WHERE closed_at IS NULL ORDER BY id DESC LIMIT 51": "ix_task_id",
    "SELECT id FROM task_history WHERE task_id = 1 ORDER BY id LIMIT 51": "ix_task_history_task_id_id",
    "SELECT kind FROM job WHERE owner_id = :me ORDER BY id DESC LIMIT 51": "ix_job_owner_id_id",
    "SELECT owner_id FROM operation WHERE deleted_at < '2020-01-01'": "ix_operation_deleted_at",
    "SELECT at FROM audit_event ORDER BY id DESC LIMIT 51": "pk_audit_event|sqlite_autoindex_audit_event_1",
    "SELECT at FROM audit_event WHERE user_id = :me ORDER BY id DESC LIMIT 51": "ix_audit_event_user_id_id",
    "SELECT at FROM audit_event WHERE actor_id = :me ORDER BY id DESC LIMIT 51": "ix_audit_event_actor_id_id",
    "SELECT at FROM audit_event WHERE event = 'sign-in' ORDER BY id DESC LIMIT 51": "ix_audit_event_event_id",
}


@pytest.mark.parametrize("query", PLANS)
def test_a_list_has_an_index_that_gives_its_order(counting: Muster, names: dict[str, object], query: str) -> None:
    with connected(counting) as connection:
        on_sqlite = connection.dialect.name == "sqlite"
        if not on_sqlite:
            # So few rows are read faster without an index: ask what could be done.
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_sort = off"))
        explain = "EXPLAIN QUERY PLAN " if on_sqlite else "EXPLAIN "
        values = {"me": str(names["me"])} if ":me" in query else {}
        plan = "\n".join(str(row) for row in connection.execute(text(explain + query), values))
    assert any(name in plan for name in PLANS[query].split("|")), plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


def test_a_search_of_accounts_uses_the_index_of_the_address_and_that_of_the_name(counting: Muster) -> None:
    conditions = and_(*UserFilter(search="Ada").conditions())
    with connected(counting) as connection:
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

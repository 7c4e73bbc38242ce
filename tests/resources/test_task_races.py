"""Concurrent changes of one task: the history stays a chain, and permissions are checked when the change is made."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.support.assertions import assert_problem
from tests.support.concurrency import at_once, wait_until_blocked
from tests.support.resources import call, new_task, pages
from tests.support.servers import Muster, Tokens
from tests.support.sessions import id_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def people(muster: Muster) -> list[Tokens]:
    return [new_person(muster) for _ in range(4)]


def new_person(muster: Muster) -> Tokens:
    """Tokens that have been used: the first use of each is written too, and a test's lock would delay that."""
    tokens = muster.new_account().tokens()
    muster.me(tokens)
    return tokens


def assert_chain(muster: Muster, tokens: Tokens, task: dict[str, Any]) -> int:
    """Each entry begins where the last one ended, and the last one names the task's assignee. Returns their number."""
    entries = [entry for page in pages(muster, tokens, f"/tasks/{task['id']}/history") for entry in page]
    ends = [None, *(entry["new_assignee_id"] for entry in entries)]
    assert [entry["previous_assignee_id"] for entry in entries] == ends[:-1]
    assert call(muster, tokens, "GET", f"/tasks/{task['id']}").json()["assignee_id"] == ends[-1]
    return len(entries)


def test_concurrent_reassignments_leave_an_unbroken_history(muster: Muster, people: list[Tokens]) -> None:
    author = people[0]
    task = new_task(muster, author, assignee_id=id_of(people[1]))
    reassign = partial(call, muster, author, "PATCH", f"/tasks/{task['id']}")
    whom = [None, *(id_of(person) for person in people)]
    answers = at_once(*(partial(reassign, {"assignee_id": who}) for who in whom * 3))
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert [answer.json()["assignee_id"] for answer in answers] == whom * 3
    assert assert_chain(muster, author, task) > 4


def test_concurrent_identical_changes_are_recorded_once(muster: Muster, people: list[Tokens]) -> None:
    author, to = people[0], id_of(people[1])
    task = new_task(muster, author)
    change = partial(call, muster, author, "PATCH", f"/tasks/{task['id']}", {"assignee_id": to, "closed": True})
    answers = at_once(*[change] * 8)
    assert len({answer.text for answer in answers}) == 1, "one time of closing"
    assert assert_chain(muster, author, task) == 1


def test_only_one_of_two_concurrent_handovers_by_the_assignee_succeeds(muster: Muster, people: list[Tokens]) -> None:
    author, first, second, third = people
    task = new_task(muster, author, assignee_id=id_of(first))
    hand_on = partial(call, muster, first, "PATCH", f"/tasks/{task['id']}")
    bodies = [{"assignee_id": id_of(second)}, {"assignee_id": id_of(third)}]
    statuses = sorted(answer.status_code for answer in at_once(*(partial(hand_on, body) for body in bodies)))
    assert statuses == [200, 403]
    assert assert_chain(muster, author, task) == 2


def while_held(muster: Muster, statement: str, **request: Any) -> httpx.Response:
    """The response to a request that has to wait for this change of somebody else, which is committed meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        with muster.engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.execute(text("PRAGMA foreign_keys=ON"))
            connection.execute(text(statement))
            waiting = thread.submit(partial(call, muster, **request))
            wait_until_blocked(muster)
        return waiting.result()


def key(muster: Muster, tokens: Tokens) -> str:
    """The id of a user as its database writes it."""
    return id_of(tokens).replace("-", "") if muster.on_sqlite else id_of(tokens)


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_an_assignee_who_loses_the_task_while_waiting_cannot_change_it(
    muster: Muster, people: list[Tokens], method: str
) -> None:
    author, assignee = people[:2]
    task = new_task(muster, author, assignee_id=id_of(assignee))
    column, loser = ("assignee_id", assignee) if method == "PATCH" else ("author_id", author)
    take = f"UPDATE task SET {column} = NULL WHERE id = {task['id']}"  # noqa: S608  # our own words
    path = f"/tasks/{task['id']}"
    body = {"closed": True} if method == "PATCH" else None
    assert_problem(while_held(muster, take, tokens=loser, method=method, path=path, body=body), 403, "not-your-task")
    assert call(muster, author, "GET", path).json()["closed_at"] is None


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_user_deleted_in_the_meantime_cannot_become_the_assignee(
    muster: Muster, people: list[Tokens], method: str
) -> None:
    gone = new_person(muster)
    path = "/tasks" if method == "POST" else f"/tasks/{new_task(muster, people[0])['id']}"
    delete = f"DELETE FROM \"user\" WHERE id = '{key(muster, gone)}'"  # noqa: S608  # our own words
    body = {"title": "x", "assignee_id": id_of(gone)}
    answer = while_held(muster, delete, tokens=people[0], method=method, path=path, body=body)
    assert_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["loc"] == ["body", "assignee_id"]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_user_deleted_while_the_request_waits_is_signed_out(muster: Muster, method: str) -> None:
    gone = new_person(muster)
    path = "/tasks" if method == "POST" else f"/tasks/{new_task(muster, gone)['id']}"
    delete = f"DELETE FROM \"user\" WHERE id = '{key(muster, gone)}'"  # noqa: S608  # our own words
    answer = while_held(muster, delete, tokens=gone, method=method, path=path, body={"title": "x"})
    assert_problem(answer, 401, "invalid-token")


def test_an_account_is_deleted_while_its_tasks_are_handed_on(muster: Muster, people: list[Tokens]) -> None:
    """The account may also be the one that a task is taken from: no deadlock, and no reference to a deleted account."""
    admin, author = muster.admin().tokens(), people[0]
    for _ in range(3):
        gone = new_person(muster)
        tasks = [new_task(muster, author, assignee_id=id_of(gone)) for _ in range(4)]
        delete = partial(call, muster, admin, "DELETE", f"/users/{id_of(gone)}")
        whom = [id_of(people[1]), id_of(gone), None, id_of(people[2])]
        hand_on = [
            partial(call, muster, author, "PATCH", f"/tasks/{task['id']}", {"assignee_id": who})
            for task, who in zip(tasks * 2, whom + whom[::-1], strict=True)
        ]
        deleted, *changed = at_once(delete, *hand_on)
        assert deleted.status_code == 204
        assert {answer.status_code for answer in changed} <= {200, 422}, [answer.text for answer in changed]
        for task in tasks:
            assert_chain(muster, author, task)

"""Tasks: who sees, changes and deletes them; the lists; and the history, which changes only when the assignee does."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from tests.support.assertions import assert_problem
from tests.support.resources import call, new_task, pages
from tests.support.servers import Muster, Tokens
from tests.support.sessions import NOBODY, id_of


@pytest.fixture(scope="module")
def people(muster: Muster) -> list[Tokens]:
    """Ada, Bob and Cyd."""
    return [muster.new_account(name=name).tokens() for name in ("Ada", "Bob", "Cyd")]


@pytest.fixture
def ada(people: list[Tokens]) -> Tokens:
    return people[0]


@pytest.fixture
def bob(people: list[Tokens]) -> Tokens:
    return people[1]


@pytest.fixture
def cyd(people: list[Tokens]) -> Tokens:
    return people[2]


def history(muster: Muster, tokens: Tokens, task: dict[str, Any]) -> list[tuple[str | None, str | None, str | None]]:
    """Each entry as the person who reassigned the task, the former assignee, and the new one."""
    rows = [row for page in pages(muster, tokens, f"/tasks/{task['id']}/history?limit=2") for row in page]
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    return [(row["changed_by"], row["previous_assignee_id"], row["new_assignee_id"]) for row in rows]


def test_a_task_is_created_read_and_deleted(muster: Muster, ada: Tokens, bob: Tokens) -> None:
    made = call(muster, ada, "POST", "/tasks", {"title": "  Water the plants "})
    task = made.json()
    assert made.status_code == 201
    assert made.headers["location"] == f"/api/tasks/{task['id']}"
    expected = {"title": "Water the plants", "author_id": id_of(ada), "assignee_id": None, "closed_at": None}
    assert task == {**expected, "id": task["id"], "created_at": task["created_at"]}
    assert datetime.fromisoformat(task["created_at"]).utcoffset() is not None
    path = f"/tasks/{task['id']}"
    assert call(muster, bob, "GET", path).json() == task
    assert call(muster, bob, "GET", f"{path}/history").json() == []
    assert call(muster, ada, "DELETE", path).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert_problem(call(muster, ada, method, path, {}), 404, "task-not-found")
    assert_problem(call(muster, ada, "GET", f"{path}/history"), 404, "task-not-found")


def test_author_and_assignee_change_a_task_and_only_its_author_deletes_it(
    muster: Muster, ada: Tokens, bob: Tokens, cyd: Tokens
) -> None:
    task = new_task(muster, ada, assignee_id=id_of(bob))
    path = f"/tasks/{task['id']}"
    assert call(muster, bob, "PATCH", path, {"title": "By Bob"}).json() == {**task, "title": "By Bob"}
    assert call(muster, ada, "PATCH", path, {"title": "By Ada"}).json() == {**task, "title": "By Ada"}
    refusals: list[Any] = [{"title": "By Cyd"}, {"assignee_id": id_of(cyd)}, {"assignee_id": NOBODY}, {}]
    for body in refusals:
        assert_problem(call(muster, cyd, "PATCH", path, body), 403, "not-your-task")
    for tokens in (bob, cyd, muster.admin().tokens()):
        assert_problem(call(muster, tokens, "DELETE", path), 403, "not-your-task")
    assert call(muster, ada, "GET", path).json() == {**task, "title": "By Ada"}

    assert call(muster, bob, "PATCH", path, {"assignee_id": id_of(cyd)}).status_code == 200
    assert_problem(call(muster, bob, "PATCH", path, {"title": "By Bob"}), 403, "not-your-task")
    assert call(muster, cyd, "PATCH", path, {"closed": True}).status_code == 200
    assert call(muster, ada, "DELETE", path).status_code == 204
    assert muster.sql("SELECT count(*) FROM task_history WHERE task_id = :id", id=task["id"])[0][0] == 0


def test_each_change_of_assignee_is_one_entry_and_no_change_is_none(
    muster: Muster, ada: Tokens, bob: Tokens, cyd: Tokens
) -> None:
    a, b, c = id_of(ada), id_of(bob), id_of(cyd)
    task = new_task(muster, ada, assignee_id=b)
    path = f"/tasks/{task['id']}"
    entries: list[tuple[str | None, ...]] = [(a, None, b)]
    assert history(muster, ada, task) == entries
    same: list[Any] = [{"assignee_id": b}, {}, {"title": task["title"]}, {"closed": False}, {"title": "Other"}]
    for body in same:
        assert call(muster, ada, "PATCH", path, body).status_code == 200
        assert history(muster, ada, task) == entries
    steps = [(bob, c), (cyd, a), (ada, None), (ada, None), (ada, b)]
    for tokens, to in steps:
        call(muster, tokens, "PATCH", path, {"assignee_id": to})
    entries += [(b, b, c), (c, c, a), (a, a, None), (a, None, b)]
    assert history(muster, ada, task) == entries


def test_closed_sets_and_clears_the_time_of_closing(muster: Muster, ada: Tokens) -> None:
    task = new_task(muster, ada)
    path = f"/tasks/{task['id']}"
    closed = call(muster, ada, "PATCH", path, {"closed": True}).json()
    assert closed["closed_at"] >= task["created_at"]
    assert call(muster, ada, "PATCH", path, {"closed": True}).json() == closed
    assert call(muster, ada, "PATCH", path, {"title": "Still closed"}).json() == {**closed, "title": "Still closed"}
    assert call(muster, ada, "PATCH", path, {"closed": False}).json()["closed_at"] is None


WRONG: list[dict[str, Any]] = [
    *({"title": title} for title in (None, "", " ", "a\0", "\ud800", "x" * 201, "\u0958" * 101, 1)),
    *({"assignee_id": who} for who in (NOBODY, "x", 1, "")),
    *({field: NOBODY} for field in ("author_id", "id", "closed_at", "created_at", "changed_by")),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: ascii(wrong)[:40])
def test_a_wrong_field_is_refused_and_named_and_changes_nothing(
    muster: Muster, ada: Tokens, wrong: dict[str, Any]
) -> None:
    task = new_task(muster, ada)
    path = f"/tasks/{task['id']}"
    for answer in (
        call(muster, ada, "POST", "/tasks", {"title": "x", **wrong}),
        call(muster, ada, "PATCH", path, {"closed": True, **wrong}),
    ):
        assert_problem(answer, 422, "invalid")
        assert answer.json()["errors"][0]["loc"] == ["body", *wrong]
    assert call(muster, ada, "GET", path).json() == task


@pytest.mark.parametrize("closed", [None, 1, "true", "x"], ids=repr)
def test_closed_is_true_or_false(muster: Muster, ada: Tokens, closed: object) -> None:
    answer = call(muster, ada, "PATCH", f"/tasks/{new_task(muster, ada)['id']}", {"closed": closed})
    assert_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["loc"] == ["body", "closed"]


@pytest.mark.parametrize(
    "task_id",
    ["0", "-1", "x", "9223372036854775807", "9223372036854775808", "9" * 5000],
    ids=lambda task_id: task_id if len(task_id) < 20 else f"{len(task_id)} digits",
)
def test_an_invalid_id_is_a_404_or_a_422(muster: Muster, ada: Tokens, task_id: str) -> None:
    kinds = {"9223372036854775807": "task-not-found", "9" * 5000: "not-found"}
    expected = (404, kinds[task_id]) if task_id in kinds else (422, "invalid")
    for method in ("GET", "PATCH", "DELETE"):
        assert_problem(call(muster, ada, method, f"/tasks/{task_id}", {}), *expected)
    assert_problem(call(muster, ada, "GET", f"/tasks/{task_id}/history"), *expected)


# ---- Lists ----


def test_the_list_is_newest_first_and_filtered_page_after_page(muster: Muster, bob: Tokens, cyd: Tokens) -> None:
    author = muster.new_account().tokens()
    wanted = [(bob, False), (bob, True), (cyd, False), (None, True), (None, False)]
    tasks = [new_task(muster, author, assignee_id=who and id_of(who)) for who, _ in wanted]
    for task, (_, closed) in zip(tasks, wanted, strict=True):
        call(muster, author, "PATCH", f"/tasks/{task['id']}", {"closed": closed})

    def found(query: str) -> list[int]:
        """The tasks that the query finds, as positions in the list above; a page holds two."""
        rows = [row for page in pages(muster, bob, f"/tasks?limit=2&{query}") for row in page]
        ids = [task["id"] for task in tasks]
        return [ids.index(row["id"]) for row in rows if row["id"] in ids]

    mine = f"author={id_of(author)}"
    assert found(mine) == [4, 3, 2, 1, 0]
    assert found(f"{mine}&open=true") == [4, 2, 0]
    assert found(f"{mine}&open=false") == [3, 1]
    assert found(f"{mine}&assignee={id_of(bob)}") == found(f"assignee={id_of(bob)}") == [1, 0]
    assert found(f"assignee={id_of(bob)}&open=true") == [0]
    assert found(f"author={NOBODY}") == []


@pytest.mark.parametrize(
    "query", ["author=x", "assignee=1", "open=perhaps", "open=", "author=%00", "after=A", "limit=0"]
)
def test_a_wrong_filter_is_refused_and_named(muster: Muster, ada: Tokens, query: str) -> None:
    answer = call(muster, ada, "GET", f"/tasks?{query}")
    assert_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["loc"] == ["query", query.partition("=")[0]]


def test_assignees_are_the_active_people_sorted_by_id(muster: Muster, ada: Tokens) -> None:
    name = f"Dan {uuid4().hex}"
    dan = muster.new_account(name=name).tokens()
    found = [person for page in pages(muster, ada, "/tasks/assignees?limit=200") for person in page]
    assert {"id": id_of(dan), "name": name} in found
    assert [person["id"] for person in found] == sorted(person["id"] for person in found)
    assert {len(person) for person in found} == {2}

    admin = muster.admin().tokens()
    task = new_task(muster, ada, assignee_id=id_of(dan))
    call(muster, admin, "PATCH", f"/users/{id_of(dan)}", {"is_active": False})
    found = [person for page in pages(muster, ada, "/tasks/assignees?limit=200") for person in page]
    assert id_of(dan) not in {person["id"] for person in found}
    refused = call(muster, ada, "POST", "/tasks", {"title": "x", "assignee_id": id_of(dan)})
    assert_problem(refused, 422, "invalid")
    unchanged = call(muster, ada, "PATCH", f"/tasks/{task['id']}", {"assignee_id": id_of(dan), "title": "Other"})
    assert unchanged.status_code == 200


def test_tasks_stay_when_an_account_is_deleted(muster: Muster, ada: Tokens) -> None:
    admin, gone = muster.admin().tokens(), muster.new_account().tokens()
    written, given = new_task(muster, gone, assignee_id=id_of(ada)), new_task(muster, ada, assignee_id=id_of(gone))
    call(muster, gone, "PATCH", f"/tasks/{written['id']}", {"assignee_id": id_of(gone)})
    assert call(muster, admin, "DELETE", f"/users/{id_of(gone)}").status_code == 204
    left = call(muster, ada, "GET", f"/tasks/{written['id']}").json()
    assert left == {**written, "author_id": None, "assignee_id": None}
    assert call(muster, ada, "GET", f"/tasks/{given['id']}").json() == {**given, "assignee_id": None}
    assert history(muster, ada, written) == [(None, None, id_of(ada)), (None, id_of(ada), None)]


def test_a_task_of_a_deleted_account_can_still_be_deleted(muster: Muster, ada: Tokens, bob: Tokens) -> None:
    admin, gone = muster.admin().tokens(), muster.new_account().tokens()
    given, free = new_task(muster, gone, assignee_id=id_of(ada)), new_task(muster, gone)
    assert_problem(call(muster, ada, "DELETE", f"/tasks/{given['id']}"), 403, "not-your-task")
    assert_problem(call(muster, admin, "DELETE", f"/tasks/{free['id']}"), 403, "not-your-task")
    assert call(muster, admin, "DELETE", f"/users/{id_of(gone)}").status_code == 204
    for task in (given, free):
        assert_problem(call(muster, bob, "DELETE", f"/tasks/{task['id']}"), 403, "not-your-task")
    assert call(muster, ada, "DELETE", f"/tasks/{given['id']}").status_code == 204
    assert call(muster, admin, "DELETE", f"/tasks/{free['id']}").status_code == 204

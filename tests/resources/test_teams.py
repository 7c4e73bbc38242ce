"""Teams and their members: joining and leaving are idempotent, also when concurrent."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text

from app.oauth2.resource_server import Caller
from app.routers.heroes import list_team_heroes
from tests.support.assertions import assert_problem
from tests.support.concurrency import at_once, wait_until_blocked
from tests.support.plans import ListPage, plans
from tests.support.resources import call, new_hero, new_team, pages, unique
from tests.support.servers import Muster, Tokens


def test_a_team_is_created_read_changed_and_deleted(muster: Muster, admin: Tokens, reader: Tokens) -> None:
    body = {"name": unique("Preventers"), "headquarters": "Sharp Tower"}
    made = call(muster, admin, "POST", "/teams", body)
    assert (made.status_code, made.json()) == (201, {**body, "id": made.json()["id"]})
    path = f"/teams/{made.json()['id']}"
    assert made.headers["location"] == f"/api{path}"
    changed = call(muster, admin, "PATCH", path, {"headquarters": " Bar "})
    assert (changed.status_code, changed.json()) == (200, {**made.json(), "headquarters": "Bar"})
    assert call(muster, reader, "GET", path).json() == changed.json()
    assert call(muster, admin, "PATCH", path, {}).json() == changed.json()
    for method in ("PATCH", "DELETE"):
        assert_problem(call(muster, reader, method, path, {}), 403, "insufficient-scope")
    assert_problem(call(muster, reader, "POST", "/teams", body), 403, "insufficient-scope")
    assert call(muster, admin, "DELETE", path).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert_problem(call(muster, admin, method, path, {}), 404, "team-not-found")


def test_a_taken_name_is_a_conflict_that_names_the_field(muster: Muster, admin: Tokens) -> None:
    first, second = new_team(muster, admin), new_team(muster, admin)
    refused = [call(muster, admin, "POST", "/teams", {"name": first["name"], "headquarters": "x"})]
    refused.append(call(muster, admin, "PATCH", f"/teams/{second['id']}", {"name": first["name"]}))
    for answer in refused:
        assert_problem(answer, 409, "team-name-taken")
        assert answer.json()["field"] == "name"


WRONG: list[dict[str, Any]] = [{"name": None}, {"name": ""}, {"headquarters": None}, {"headquarters": "a\0"}, {"id": 1}]


@pytest.mark.parametrize("wrong", WRONG, ids=ascii)
def test_a_wrong_field_is_refused_and_named(muster: Muster, admin: Tokens, wrong: dict[str, Any]) -> None:
    team = new_team(muster, admin)
    body = {"name": unique("Wrong"), "headquarters": "x", **wrong}
    path = f"/teams/{team['id']}"
    for answer in (call(muster, admin, "POST", "/teams", body), call(muster, admin, "PATCH", path, wrong)):
        assert_problem(answer, 422, "invalid")
        assert answer.json()["errors"][0]["loc"] == ["body", *wrong]
    assert call(muster, admin, "GET", path).json() == team


def test_the_list_is_sorted_by_name_page_after_page(muster: Muster, admin: Tokens) -> None:
    names = {new_team(muster, admin)["name"] for _ in range(3)}
    seen = [team["name"] for page in pages(muster, admin, "/teams?limit=2") for team in page]
    assert seen == sorted(seen)
    assert names <= set(seen)


# ---- Memberships ----


def test_joining_and_leaving_may_be_repeated(muster: Muster, admin: Tokens, reader: Tokens) -> None:
    hero, team = new_hero(muster, admin), new_team(muster, admin)
    link, teams = f"/heroes/{hero['id']}/teams/{team['id']}", f"/heroes/{hero['id']}/teams"
    heroes = f"/teams/{team['id']}/heroes"
    assert call(muster, admin, "GET", teams).json() == call(muster, admin, "GET", heroes).json() == []
    for method in ("PUT", "DELETE"):
        assert_problem(call(muster, reader, method, link), 403, "insufficient-scope")

    assert call(muster, admin, "PUT", link).status_code == 204
    first = call(muster, admin, "GET", teams).json()
    joined_at = first[0]["joined_at"]
    assert first == [{**team, "joined_at": joined_at}]
    assert datetime.fromisoformat(joined_at).utcoffset() is not None
    assert joined_at.endswith("Z")
    again = call(muster, admin, "PUT", link)
    assert (again.status_code, again.content) == (204, b"")
    assert call(muster, admin, "GET", teams).json() == first
    assert call(muster, admin, "GET", heroes).json() == [{**hero, "joined_at": joined_at}]

    for _ in range(2):
        assert call(muster, admin, "DELETE", link).status_code == 204
        assert call(muster, admin, "GET", heroes).json() == []


def test_a_missing_hero_or_team_is_a_404_that_says_which(muster: Muster, admin: Tokens) -> None:
    hero, team, none = new_hero(muster, admin)["id"], new_team(muster, admin)["id"], 2**62
    for method in ("PUT", "DELETE"):
        assert_problem(call(muster, admin, method, f"/heroes/{none}/teams/{team}"), 404, "hero-not-found")
        assert_problem(call(muster, admin, method, f"/heroes/{hero}/teams/{none}"), 404, "team-not-found")
    assert_problem(call(muster, admin, "GET", f"/heroes/{none}/teams"), 404, "hero-not-found")
    assert_problem(call(muster, admin, "GET", f"/teams/{none}/heroes"), 404, "team-not-found")


def test_both_lists_of_members_are_sorted_by_name_page_after_page(muster: Muster, admin: Tokens) -> None:
    heroes, teams = [new_hero(muster, admin) for _ in range(3)], [new_team(muster, admin) for _ in range(3)]
    new_hero(muster, admin)  # belongs to none
    for hero, team in [*((hero, teams[0]) for hero in heroes), *((heroes[0], team) for team in teams)]:
        call(muster, admin, "PUT", f"/heroes/{hero['id']}/teams/{team['id']}")
    for path, expected in ((f"/teams/{teams[0]['id']}/heroes", heroes), (f"/heroes/{heroes[0]['id']}/teams", teams)):
        found = pages(muster, admin, f"{path}?limit=2")
        assert [len(page) for page in found] == [2, 1]
        assert [row["name"] for page in found for row in page] == sorted(row["name"] for row in expected)
    behind = call(muster, admin, "GET", f"/teams/{teams[0]['id']}/heroes?limit=2").links["next"]["url"]
    call(muster, admin, "DELETE", f"/heroes/{max(heroes, key=lambda hero: str(hero['name']))['id']}")
    assert muster.client.get(behind, headers=admin.bearer).json() == []  # nobody is left, which is not a 404


def test_deleting_a_hero_or_team_ends_its_memberships_and_no_others(muster: Muster, admin: Tokens) -> None:
    (first, second), team = (new_hero(muster, admin), new_hero(muster, admin)), new_team(muster, admin)
    for hero in (first, second):
        call(muster, admin, "PUT", f"/heroes/{hero['id']}/teams/{team['id']}")
    call(muster, admin, "DELETE", f"/heroes/{first['id']}")
    left = call(muster, admin, "GET", f"/teams/{team['id']}/heroes").json()
    assert [hero["id"] for hero in left] == [second["id"]]
    call(muster, admin, "DELETE", f"/teams/{team['id']}")
    assert call(muster, admin, "GET", f"/heroes/{second['id']}/teams").json() == []


# ---- Races ----


def test_ten_concurrent_joins_of_a_pair_make_one_membership(muster: Muster, admin: Tokens) -> None:
    hero, team = new_hero(muster, admin), new_team(muster, admin)
    join = partial(call, muster, admin, "PUT", f"/heroes/{hero['id']}/teams/{team['id']}")
    assert [answer.status_code for answer in at_once(*[join] * 10)] == [204] * 10
    assert len(call(muster, admin, "GET", f"/heroes/{hero['id']}/teams").json()) == 1


@pytest.mark.parametrize("what", ["hero", "team"])
def test_joining_while_a_hero_or_team_is_being_deleted_is_a_404(muster: Muster, admin: Tokens, what: str) -> None:
    ids = {"hero": new_hero(muster, admin)["id"], "team": new_team(muster, admin)["id"]}
    link = f"/heroes/{ids['hero']}/teams/{ids['team']}"
    with ThreadPoolExecutor(1) as thread:
        with muster.engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {what} WHERE id = {ids[what]}"))  # noqa: S608  # our own words
            joining = thread.submit(call, muster, admin, "PUT", link)
            wait_until_blocked(muster)
        assert_problem(joining.result(), 404, f"{what}-not-found")
    assert_problem(call(muster, admin, "DELETE", link), 404, f"{what}-not-found")


def test_joining_leaving_and_deleting_at_once_never_fails(muster: Muster, admin: Tokens) -> None:
    for _ in range(3):
        hero, team = new_hero(muster, admin)["id"], new_team(muster, admin)["id"]
        link = f"/heroes/{hero}/teams/{team}"
        changes = [*[("PUT", link)] * 3, *[("DELETE", link)] * 3, ("DELETE", f"/heroes/{hero}")]
        answers = at_once(*(partial(call, muster, admin, *change) for change in changes))
        assert {answer.status_code for answer in answers} <= {204, 404}
        assert answers[-1].status_code == 204
        assert call(muster, admin, "GET", f"/teams/{team}/heroes").json() == []


def test_the_heroes_of_a_team_are_found_by_an_index(muster: Muster, admin: Tokens) -> None:
    """They are sorted by the name, which is in another table."""
    team, me = int(new_team(muster, admin)["id"]), cast("Caller", SimpleNamespace(scopes=frozenset()))
    with muster.engine.begin() as connection:
        if connection.dialect.name != "sqlite":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        _, plan = plans(connection, lambda session: list_team_heroes(team, me, session, ListPage(None)))
    assert "ix_hero_team_link_team_id" in plan, plan
    assert "SCAN" not in plan

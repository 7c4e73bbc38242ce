"""--demo: data that look like some months of use, loaded once and completely, and never in production."""

import re
from pathlib import Path

import pytest

from scripts.demo import DEMO_EMAIL, DEMO_PASSWORD
from tests.support.concurrency import at_once
from tests.support.resources import call, pages
from tests.support.schema import engine_for, rows
from tests.support.seeds import seed
from tests.support.servers import Muster, Tokens

pytestmark = pytest.mark.slow

ROWS = {"user": 3, "operation": 122, "hero": 18, "team": 5, "hero_team_link": 18, "task": 25}


def contents(url: str) -> dict[str, list[dict[str, object]]]:
    with engine_for(url).begin() as connection:
        return {name: found for name, found in rows(connection).items() if name in {*ROWS, "task_history"}}


def test_concurrent_starts_load_the_demo_once_and_a_repeat_changes_nothing(database_url: str) -> None:
    said = at_once(*[lambda: seed(database_url, "--demo")] * 2)
    assert said == [(0, f"Roles: user, admin.\nDemo account: {DEMO_EMAIL}, password {DEMO_PASSWORD}.\n")] * 2
    first = contents(database_url)
    assert {name: len(first[name]) for name in ROWS} == ROWS
    assert seed(database_url, "--demo")[0] == 0
    assert contents(database_url) == first


def test_production_refuses_the_demo_account_and_stays_empty(database_url: str) -> None:
    status, said = seed(
        database_url,
        "--demo",
        ENVIRONMENT="production",
        MAIL_URL="smtp://localhost:25",
        PUBLIC_URL="https://muster.example",
    )
    assert status == 1
    assert re.search(r"^muster: ENVIRONMENT: .* production", said, re.MULTILINE)
    assert DEMO_PASSWORD not in said
    assert all(found == [] for found in contents(database_url).values())


def test_the_demo_account_signs_in_and_finds_a_consistent_history(database_url: str, folder: Path) -> None:
    muster = Muster(database_url, folder)
    muster.module = ["scripts.start", "--demo"]
    with muster:
        assert f"{DEMO_EMAIL}, password {DEMO_PASSWORD}" in muster.log
        tokens = Tokens(muster.token(grant_type="password", username=DEMO_EMAIL, password=DEMO_PASSWORD).json())
        assert muster.me(tokens).json()["role"] == "user"
        totals = call(muster, tokens, "GET", "/operations/summary").json()
        assert sum(total["count"] for total in totals) == 122
        assert len({total["month"] for total in totals}) >= 12
        assert "secret_name" not in call(muster, tokens, "GET", "/heroes").text
        handed_on = 0
        for task in pages(muster, tokens, "/tasks?limit=200")[0]:
            entries = call(muster, tokens, "GET", f"/tasks/{task['id']}/history").json()
            ends = [None, *(entry["new_assignee_id"] for entry in entries)]
            assert [entry["previous_assignee_id"] for entry in entries] == ends[:-1]
            assert task["assignee_id"] == ends[-1]
            times = [task["created_at"], *(entry["changed_at"] for entry in entries), task["closed_at"]]
            assert sorted(filter(None, times)) == list(filter(None, times))
            handed_on += len(entries) > 1
        assert handed_on > 5

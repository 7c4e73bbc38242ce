"""READ_DATABASE_URL: rows that may be old come from there; accounts, and whatever is written, do not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answers import assert_problem
from tests.databases import fresh_database
from tests.servers import Muster


@pytest.fixture
def behind(kind: str, folder: Path, postgres: str) -> Iterator[tuple[Muster, Muster]]:
    """An instance, and one that reads from a replica: a database that hears nothing of the first one's writes."""
    with (
        fresh_database(kind, folder, postgres) as primary,
        fresh_database(kind, folder, postgres) as replica,
        Muster(primary, folder, READ_DATABASE_URL=replica) as served,
        Muster(replica, folder) as old,
    ):
        yield served, old


def test_rows_come_from_the_replica_and_accounts_do_not(behind: tuple[Muster, Muster]) -> None:
    served, old = behind
    there = old.admin().sign_in()
    hero = old.client.post("/api/heroes", json={"name": "Old", "secret_name": "x"}, headers=there.bearer).json()
    here = served.admin().sign_in()
    new = served.client.post("/api/heroes", json={"name": "New", "secret_name": "y"}, headers=here.bearer)
    assert new.status_code == 201
    assert [one["name"] for one in served.client.get("/api/heroes", headers=here.bearer).json()] == ["Old"]
    assert served.client.get(f"/api/heroes/{hero['id']}", headers=here.bearer).json()["name"] == "Old"
    assert [row.name for row in served.sql("SELECT name FROM hero")] == ["New"]
    assert served.client.get("/api/tasks", headers=here.bearer).json() == []
    assert_problem(served.client.get("/api/heroes", headers=there.bearer), 401, "invalid-token")


def test_a_replica_cannot_be_written_to(behind: tuple[Muster, Muster]) -> None:
    served, old = behind
    here = served.admin().sign_in()
    served.client.post("/api/tasks", json={"title": "one"}, headers=here.bearer)
    assert len(served.sql("SELECT id FROM task")) == 1
    assert old.sql("SELECT id FROM task") == []

"""The last admin cannot be removed, not even when two admins remove each other at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.support.assertions import assert_problem
from tests.support.databases import fresh_database
from tests.support.servers import PASSWORD, Muster, Tokens
from tests.support.sessions import id_of

REMOVALS: dict[str, tuple[str, Any]] = {
    "demote": ("PATCH", {"role": "user"}),
    "disable": ("PATCH", {"is_active": False}),
    "delete": ("DELETE", None),
}


def call(muster: Muster, tokens: Tokens, method: str, path: str, body: Any = None) -> httpx.Response:
    return muster.client.request(method, f"/api/users/{path}", json=body, headers=tokens.bearer)


@pytest.fixture(scope="module")
def alone(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance whose only admins are those of these tests."""
    with fresh_database(kind, folder, postgres) as url, Muster(url, folder) as served:
        yield served


@pytest.fixture
def muster(alone: Muster) -> Muster:
    """The same instance, without an admin."""
    alone.sql("UPDATE \"user\" SET role_id = (SELECT id FROM role WHERE name = 'user')")
    return alone


def test_the_last_admin_cannot_be_deleted_disabled_or_demoted(muster: Muster) -> None:
    account, other = muster.admin(), muster.admin()
    admin = account.tokens()
    call(muster, admin, "PATCH", id_of(other.tokens()), {"is_active": False})  # a disabled admin does not count
    attempts = [(method, id_of(admin), body) for method, body in REMOVALS.values()]
    for method, target, body in [*attempts, ("DELETE", "me", {"current_password": PASSWORD})]:
        assert_problem(call(muster, admin, method, target, body), 409, "last-admin")
    harmless = {"name": "Ada", "role": "admin", "is_active": True}
    assert call(muster, admin, "PATCH", id_of(admin), harmless).status_code == 200
    muster.admin()
    assert call(muster, admin, "PATCH", id_of(admin), {"role": "user"}).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("demote", "demote"), ("delete", "delete"), ("disable", "delete")])
def test_when_two_admins_remove_each_other_concurrently_one_remains(muster: Muster, first: str, second: str) -> None:
    for _ in range(5):
        muster.sql("UPDATE \"user\" SET role_id = (SELECT id FROM role WHERE name = 'user')")
        admins, together = [muster.admin().tokens(), muster.admin().tokens()], Barrier(2)

        def remove(number: int, by: list[Tokens] = admins, start: Barrier = together) -> int:
            method, body = REMOVALS[(first, second)[number]]
            start.wait()
            return call(muster, by[number], method, id_of(by[1 - number]), body).status_code

        with ThreadPoolExecutor(2) as pool:
            statuses = sorted(pool.map(remove, range(2)))
        assert statuses[0] in {200, 204}
        assert statuses[1] in {401, 403, 409}
        left = muster.sql(
            "SELECT u.id FROM \"user\" u JOIN role r ON r.id = u.role_id WHERE r.name = 'admin' AND u.is_active"
        )
        assert len(left) == 1

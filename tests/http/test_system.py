"""GET /api/system: what runs and what waits."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.migrations import newest_revision
from tests.support.redis_server import RedisServer
from tests.support.resources import call
from tests.support.servers import Muster

Serve = Callable[..., Muster]


@pytest.fixture
def muster(database_url: str, folder: Path, tmp_path: Path) -> Iterator[Muster]:
    """An instance with backups of its own."""
    with Muster(database_url, folder, app="tests.support.apps.own_data:app", OWN_DATA=str(tmp_path)) as served:
        yield served


def test_an_admin_sees_what_runs_and_what_waits(muster: Muster, tmp_path: Path) -> None:
    admin = muster.admin().tokens()
    muster.client.post("/api/jobs/statement", json={}, headers=admin.bearer)
    assert call(muster, admin, "GET", "/system").json()["backup"] == {"name": None, "at": None}
    backups = [tmp_path / "backups" / f"muster-2026{month}01T000000Z.db" for month in ("10", "11", "09")]
    backups[0].parent.mkdir()
    for backup in backups:
        backup.touch()
    found = call(muster, admin, "GET", "/system").json()
    database = found["database"]
    assert database["kind"] == ("sqlite" if muster.on_sqlite else "postgresql")
    assert database["version"][0].isdecimal()
    assert database["migration"] == newest_revision()
    assert sum(queue["jobs"] for queue in found["queues"] if queue["queue"] == "default") > 0
    assert (found["backup"]["name"], found["redis"]) == (backups[1].name, "none")
    assert str(tmp_path) not in str(found)
    version = muster.client.get("/api/openapi.json").json()["info"]["version"]
    assert found["version"] == version


def test_a_redis_that_hangs_is_not_waited_for(serve: Serve, redis: RedisServer) -> None:
    muster = serve(REDIS_URL=redis.url)
    admin = muster.admin().tokens()
    assert call(muster, admin, "GET", "/system").json()["redis"] == "available"
    with redis.frozen():
        assert call(muster, admin, "GET", "/system").json()["redis"] == "unavailable"

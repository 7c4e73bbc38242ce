"""GET /api/system: what runs and what waits."""

from collections.abc import Callable

from app.core.migrations import newest_revision
from app.core.settings import DATA
from tests.support.redis_server import RedisServer
from tests.support.resources import call
from tests.support.servers import Muster

Serve = Callable[..., Muster]


def test_an_admin_sees_what_runs_and_what_waits(muster: Muster) -> None:
    admin = muster.admin().tokens()
    muster.client.post("/api/jobs/statement", json={}, headers=admin.bearer)
    backup = DATA / "backups" / "muster-99990101T000000Z.db"
    backup.parent.mkdir(parents=True, exist_ok=True)
    backup.touch()
    try:
        found = call(muster, admin, "GET", "/system").json()
    finally:
        backup.unlink()
    database = found["database"]
    assert database["kind"] == ("sqlite" if muster.database_url.startswith("sqlite") else "postgresql")
    assert database["version"][0].isdecimal()
    assert database["migration"] == newest_revision()
    assert sum(queue["jobs"] for queue in found["queues"] if queue["queue"] == "default") > 0
    assert (found["backup"]["name"], found["redis"]) == (backup.name, "none")
    assert str(DATA) not in str(found)
    version = muster.client.get("/api/openapi.json").json()["info"]["version"]
    assert found["version"] == version


def test_a_redis_that_hangs_is_not_waited_for(serve: Serve, redis: RedisServer) -> None:
    muster = serve(REDIS_URL=redis.url)
    admin = muster.admin().tokens()
    assert call(muster, admin, "GET", "/system").json()["redis"] == "available"
    redis.freeze()
    try:
        assert call(muster, admin, "GET", "/system").json()["redis"] == "unavailable"
    finally:
        redis.thaw()

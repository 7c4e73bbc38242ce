"""The cache of totals: by revision, made once, bounded, in memory or in a real Redis, and never needed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from uuid import UUID, uuid4

import pytest
from redis import Redis

from app.core import metrics
from app.core.cache import Cache
from tests.support.ledgers import Ledger
from tests.support.redis_server import RedisServer
from tests.support.servers import Muster, free_port

OWNER = UUID(int=1)


class Counted:
    """Makes one value, and counts how often."""

    def __init__(self, value: bytes = b"made") -> None:
        self.value, self.times = value, 0

    def __call__(self) -> bytes:
        self.times += 1
        return self.value


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.slow)])
def cache(request: pytest.FixtureRequest) -> Cache:
    return Cache(None if request.param == "memory" else request.getfixturevalue("redis").url)


def test_a_value_is_computed_once_for_an_owner_a_revision_and_a_query(cache: Cache) -> None:
    owner, make = uuid4(), Counted(b"\x00|\xff{}")
    assert [cache.get_or_make(owner, 1, "q", make) for _ in range(3)] == [make.value] * 3
    assert make.times == 1
    for other in ((owner, 2, "q"), (owner, 1, "r"), (uuid4(), 1, "q")):
        cache.get_or_make(*other, make)
    assert make.times == 4


def test_one_of_many_concurrent_threads_computes_the_value(cache: Cache) -> None:
    owner, started, go = uuid4(), Event(), Event()
    times = []

    def make() -> bytes:
        times.append(1)
        started.set()
        go.wait(30)
        return b"made"

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.get_or_make, owner, 1, "q", make) for _ in range(8)]
        started.wait(30)
        go.set()
    assert ({each.result() for each in asked}, len(times)) == ({b"made"}, 1)


def test_an_error_reaches_the_caller_and_is_not_cached(cache: Cache) -> None:
    owner = uuid4()

    def fail() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        cache.get_or_make(owner, 1, "q", fail)
    assert cache.get_or_make(owner, 1, "q", Counted()) == b"made"


def test_memory_is_bounded_and_drops_the_least_recently_used() -> None:
    cache, make = Cache(None, max_bytes=1_000), Counted(b"x" * 400)
    for query in ("a", "b", "a", "c", "a"):
        cache.get_or_make(OWNER, 1, query, make)
    assert make.times == 3
    cache.get_or_make(OWNER, 1, "b", make)
    assert make.times == 4
    large = Counted(b"x" * 2_000)
    assert [cache.get_or_make(OWNER, 1, "large", large) for _ in "12"] == [large.value] * 2
    assert large.times == 2


def test_memory_is_safe_between_threads() -> None:
    cache = Cache(None, max_bytes=500)
    with ThreadPoolExecutor(8) as pool:
        for n, found in enumerate(
            pool.map(lambda n: cache.get_or_make(OWNER, n % 7, "q", lambda: b"%d" % (n % 7) * 40), range(500))
        ):
            assert found == b"%d" % (n % 7) * 40


def test_values_in_redis_are_not_pickles_and_expire(redis: RedisServer) -> None:
    owner = uuid4()
    Cache(redis.url).get_or_make(owner, 1, "q", Counted(b'{"a": 1}'))
    with Redis.from_url(redis.url) as client:
        key = f"muster/totals/{owner}.1/q"
        assert client.get(key) == b'{"a": 1}'
        assert 0 < int(client.ttl(key)) <= 86_400


def failures() -> float:
    return metrics.registry.get_sample_value("muster_cache_failures_total") or 0


def test_processes_share_values_in_redis(redis: RedisServer) -> None:
    owner, make = uuid4(), Counted()
    assert [Cache(redis.url).get_or_make(owner, 1, "q", make) for _ in range(2)] == [b"made"] * 2
    assert make.times == 1


def test_while_redis_is_unavailable_each_process_computes_a_value_once_and_counts_the_failure() -> None:
    unavailable, make = f"redis://127.0.0.1:{free_port()}/0", Counted()
    before = failures()
    for cache in (Cache(unavailable), Cache(unavailable)):
        assert [cache.get_or_make(OWNER, 1, "q", make) for _ in range(2)] == [b"made"] * 2
    assert (make.times, failures() - before) == (2, 2)


def test_totals_are_right_with_redis_and_after_it_has_gone(serve: Callable[..., Muster], tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        ledger = Ledger(serve(REDIS_URL=redis.url))
        ledger.add(quantity="0.1")
        first = ledger.get("summary")
        assert len(list(redis.client.scan_iter("muster/*"))) == 1
        again = ledger.get("summary")
        assert (first.status_code, again.content, again.headers["etag"]) == (200, first.content, first.headers["etag"])
        ledger.add(quantity="0.2")
        assert [total["quantity"] for total in ledger.get("summary").json()] == ["0.3"]
    ledger.add(quantity="0.4")
    gone = ledger.get("summary")
    assert (gone.status_code, [total["quantity"] for total in gone.json()]) == (200, ["0.7"])


@pytest.mark.parametrize("shared", [True, False], ids=["redis", "memory"])
def test_a_write_is_seen_by_the_next_read_on_every_process_and_by_nobody_else(
    serve: Callable[..., Muster], redis: RedisServer, shared: bool
) -> None:
    settings = {"PUBLIC_URL": "http://localhost:8000", **({"REDIS_URL": redis.url} if shared else {})}
    both = [serve(**settings), serve(**settings)]
    ada, bob = Ledger(both[0]), Ledger(both[0])
    for number in range(1, 5):
        ada.add(quantity="0.25")
        for muster in [*both, *both]:
            answer = muster.client.get("/api/operations/summary", headers=ada.tokens.bearer)
            assert [total["count"] for total in answer.json()] == [number]
            assert answer.headers["etag"] == f'"{ada.owner_id}.{number}"'
            assert answer.headers["cache-control"] == "private, no-cache"
            assert "Authorization" in answer.headers["vary"]
            assert muster.client.get("/api/operations/summary", headers=bob.tokens.bearer).json() == []

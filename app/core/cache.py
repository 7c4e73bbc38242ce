"""The server-side cache: bytes by a key that contains a revision, so that nothing is ever stale or invalidated.

Each process keeps the latest. If REDIS_URL is set, processes also share them there, while Redis is available.
"""

from collections.abc import Callable
from functools import partial
from threading import Condition
from typing import Any
from uuid import UUID

from cachetools import LRUCache, cached

from app.core import metrics
from app.core.redis import CLIENT_OPTIONS, circuit_breaker

REDIS_TTL = 86_400  # seconds; old revisions are never requested again

Make = Callable[[], bytes]
Get = Callable[[str, Make], bytes]


class Cache:
    def __init__(self, redis_url: str | None, *, max_bytes: int = 16 * 2**20) -> None:
        latest = LRUCache[str, bytes](max_bytes, getsizeof=len)
        get: Get = _shared(redis_url) if redis_url else lambda _key, make: make()
        # Behind a condition, one thread gets a value and the others that request it at the same time wait.
        self._get = cached(latest, key=lambda key, _make: key, condition=Condition())(get)

    def get_or_make(self, owner_id: UUID, revision: int, query: str, make: Make) -> bytes:
        """The result of `make` for this key. If several threads request it at once, one of them computes it."""
        return self._get(f"muster/totals/{owner_id}.{revision}/{query}", make)


def _shared(redis_url: str) -> Get:
    """A function that returns the value in Redis, or makes it and stores it there."""
    from redis import Redis  # noqa: PLC0415  # importing it takes 0.1 s, which only Redis users need

    redis: Any = Redis.from_url(redis_url, **CLIENT_OPTIONS)
    breaker = circuit_breaker(redis_url)

    def get(key: str, make: Make) -> bytes:
        value: bytes | None = breaker.call(partial(redis.get, key), lambda: None)
        if value is None:
            value = make()
            breaker.call(partial(redis.set, key, value, ex=REDIS_TTL), partial(metrics.count, "cache_failures"))
        return value

    return get

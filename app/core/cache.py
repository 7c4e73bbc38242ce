"""The server's cache: bytes under a key that holds a revision, so that nothing in it is ever stale or invalidated.

In Redis when REDIS_URL is set, else in this process. While Redis is away every answer is computed.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any
from uuid import UUID

from cachetools import LRUCache
from dogpile.cache import make_region
from dogpile.cache.proxy import ProxyBackend

from app.core import metrics

MEMORY = 16 * 2**20  # bytes
KEPT_IN_REDIS = 86_400  # seconds; an old revision is asked for no more
_TIMEOUTS = {"socket_timeout": 1, "socket_connect_timeout": 1}  # seconds


class _Memory(LRUCache[str, bytes]):
    """At most so many bytes; cachetools leaves the locking to its user."""

    def __init__(self, size: int) -> None:
        super().__init__(size, getsizeof=len)
        self._lock = Lock()

    def get(self, key: str, default: Any = None) -> Any:
        with self._lock:
            return super().get(key, default)

    def __setitem__(self, key: str, value: bytes) -> None:
        with self._lock:
            if len(value) <= self.maxsize:
                super().__setitem__(key, value)


class _Expiring(ProxyBackend):
    """Redis forgets a value after a day; dogpile's own way is deprecated in redis-py."""

    def set_serialized(self, key: str, value: bytes) -> None:
        backend: Any = self.proxied
        backend.writer_client.set(key, value, ex=KEPT_IN_REDIS)


def _as_it_is(value: bytes) -> bytes:
    return value


class Cache:
    def __init__(self, redis_url: str | None, *, memory: int = MEMORY) -> None:
        # Bytes go in and come out as they are: a pickle from Redis could run anything here.
        self._region = make_region(serializer=_as_it_is, deserializer=_as_it_is)
        self._away: tuple[type[Exception], ...] = ()
        if redis_url:
            from redis.exceptions import RedisError  # noqa: PLC0415  # a tenth of a second that others need not wait

            self._away = (RedisError,)
            self._region.configure("dogpile.cache.redis", arguments={"url": redis_url, **_TIMEOUTS}, wrap=[_Expiring])
        else:
            self._region.configure("dogpile.cache.memory", arguments={"cache_dict": _Memory(memory)})

    def get_or_make(self, owner_id: UUID, revision: int, query: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gives for this key. Of several threads that ask for the same at once, one makes it."""
        made: list[bytes] = []

        def make_once() -> bytes:
            made.append(make())
            return made[0]

        try:
            found = bytes(self._region.get_or_create(f"muster/{owner_id}.{revision}/{query}", make_once))
        except self._away:
            metrics.count("cache_failures")
            return made[0] if made else make()
        metrics.count("cache_requests", result="miss" if made else "hit")
        return found

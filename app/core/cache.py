"""The server-side cache: bytes by a key that contains a revision, so that nothing is ever stale or invalidated.

Stored in Redis if REDIS_URL is set, else in this process. While Redis is unavailable, everything is computed.
"""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any
from uuid import UUID

from cachetools import LRUCache
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from dogpile.cache.proxy import ProxyBackend

from app.core import metrics
from app.core.redis import CLIENT_OPTIONS, CircuitBreaker, circuit_breaker

MEMORY = 16 * 2**20  # bytes
REDIS_TTL = 86_400  # seconds; old revisions are never requested again


class _Memory(LRUCache[str, bytes]):
    """A bounded number of bytes, with the locking that cachetools leaves to its user."""

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


class _Redis(ProxyBackend):
    """Redis, which is treated as empty while it is unavailable."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def get_serialized(self, key: str) -> Any:
        return self._breaker.call(lambda: self.proxied.get_serialized(key), lambda: NO_VALUE)

    def set_serialized(self, key: str, value: bytes) -> None:
        """Let values expire in Redis; dogpile's own option for that uses a deprecated redis-py call."""
        client: Any = self.proxied
        self._breaker.call(
            lambda: client.writer_client.set(key, value, ex=REDIS_TTL), partial(metrics.count, "cache_failures")
        )


class Cache:
    def __init__(self, redis_url: str | None, *, memory: int = MEMORY) -> None:
        # Bytes are stored as they are: unpickling data from Redis could execute code.
        self._region = make_region(serializer=bytes, deserializer=bytes)
        if redis_url:
            proxy = _Redis(circuit_breaker(redis_url))
            self._region.configure(
                "dogpile.cache.redis", arguments={"url": redis_url, "connection_kwargs": CLIENT_OPTIONS}, wrap=[proxy]
            )
        else:
            self._region.configure("dogpile.cache.memory", arguments={"cache_dict": _Memory(memory)})

    def get_or_make(self, owner_id: UUID, revision: int, query: str, make: Callable[[], bytes]) -> bytes:
        """The result of `make` for this key. If several threads request it at once, one of them computes it."""
        return bytes(self._region.get_or_create(f"muster/{owner_id}.{revision}/{query}", make))

"""Moving windows for rate limits, by `limits`, the library behind slowapi.

They count in Redis when REDIS_URL is set. While Redis is unreachable, each process counts for itself.
"""

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from limits import RateLimitItem
from limits.storage import MemoryStorage, RedisStorage

from app.core import metrics
from app.core.errors import TooManyRequests
from app.core.redis import CLIENT_OPTIONS, circuit_breaker

T = TypeVar("T")


class LocalStorage(MemoryStorage):
    """The moving windows of this process, swept once a minute.

    The class that it extends starts a thread every 10 ms, which walks through all windows. That took a fifth of the CPU
    at 500 sessions, and more with every session.
    """

    STORAGE_SCHEME = ["local"]  # noqa: RUF012  # limits registers the class under it, and types it as a list
    _swept_at = 0.0

    def _MemoryStorage__schedule_expiry(self) -> None:  # noqa: N802  # overrides the private method of that name
        if time.time() > self._swept_at + 60:  # seconds between two sweeps
            self._swept_at = time.time()
            super()._MemoryStorage__schedule_expiry()  # type: ignore[misc]  # private, hence unknown to mypy


class SharedStorage(RedisStorage):
    """Moving windows in Redis, or in this process while Redis is unavailable.

    slowapi's own fallback catches the failure of one thread, and answers those of the others with a 500.
    """

    STORAGE_SCHEME = ["redis", "rediss"]  # noqa: RUF012  # the same; slowapi finds it under the scheme of REDIS_URL

    def __init__(self, uri: str) -> None:
        super().__init__(uri, **CLIENT_OPTIONS)
        self._local, self._breaker = LocalStorage(), circuit_breaker(uri)

    def acquire_entry(self, *arguments: Any, **options: Any) -> bool:
        return self._either(super().acquire_entry, self._local.acquire_entry, *arguments, **options)

    def get_moving_window(self, *arguments: Any) -> tuple[float, int]:
        return self._either(super().get_moving_window, self._local.get_moving_window, *arguments)

    def clear(self, key: str) -> None:
        self._either(super().clear, self._local.clear, key)

    def _either(self, shared: Callable[..., T], local: Callable[..., T], *arguments: Any, **options: Any) -> T:
        def count_here() -> T:
            metrics.count("limit_storage_failures")
            return local(*arguments, **options)

        return self._breaker.call(lambda: shared(*arguments, **options), count_here)


def refusal(item: RateLimitItem, reset_time: float, kind: str) -> TooManyRequests:
    """A 429 with the RateLimit fields of the IETF draft."""
    metrics.count("limit_hits", kind=kind)
    seconds = max(1, math.ceil(reset_time - time.time()))
    policy = f'"{kind}";q={item.amount};w={item.get_expiry()}'
    state = f'"{kind}";r=0;t={seconds}'
    return TooManyRequests(headers={"Retry-After": str(seconds), "RateLimit-Policy": policy, "RateLimit": state})

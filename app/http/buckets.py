"""The storage of limits in one process: who came how often, without the thread that limits' own has."""

import time
from collections import deque
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from limits.storage import MemoryStorage


@dataclass(slots=True)
class Bucket:
    """When the requests of one key within the last `expiry` seconds came, the oldest first."""

    expiry: int
    hits: deque[float] = field(default_factory=deque)

    def forget(self, now: float) -> None:
        while self.hits and self.hits[0] < now - self.expiry:
            self.hits.popleft()


class Buckets(MemoryStorage):
    """The moving windows of this process. The class it extends starts a thread every 10 ms that walks all of them,
    which took a fifth of the CPU at 500 sessions and more with every session (docs/benchmarks.md)."""

    STORAGE_SCHEME = ["buckets"]  # noqa: RUF012  # limits registers the class under it, and types it as a list
    SWEEP = 60  # seconds from one removal of the empty buckets to the next

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        super().__init__(uri, **options)
        self._lock = Lock()
        self._buckets: dict[str, Bucket] = {}
        self._sweep_at = time.time() + self.SWEEP

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = time.time()
        with self._lock:
            self._sweep(now)
            bucket = self._buckets.setdefault(key, Bucket(expiry))
            bucket.forget(now)
            if len(bucket.hits) + amount > limit:
                return False
            bucket.hits.extend([now] * amount)
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002  # limits' own
        now = time.time()
        with self._lock:
            bucket = self._buckets.get(key, Bucket(expiry))
            bucket.forget(now)
            return (bucket.hits[0] if bucket.hits else now), len(bucket.hits)

    def clear(self, key: str) -> None:
        with self._lock:
            self._buckets.pop(key, None)

    def _sweep(self, now: float) -> None:
        if now < self._sweep_at:
            return
        self._sweep_at = now + self.SWEEP
        for key, bucket in list(self._buckets.items()):
            bucket.forget(now)
            if not bucket.hits:
                del self._buckets[key]

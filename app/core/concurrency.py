"""Work that is too heavy to be done by many at once: a few at work, a few waiting, and a 503 for the others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from app.core.errors import Unavailable


class Turns:
    """At most `width` at work and `most` in all, in this process; `busy` is what the next one is told."""

    def __init__(self, width: int, most: int, *, busy: str, retry_after: int) -> None:
        self._limiter = anyio.CapacityLimiter(width)
        self._most, self._taken = most, 0
        self._busy, self._retry_after = busy, retry_after

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._taken >= self._most:
            raise Unavailable(self._busy, retry_after=self._retry_after)
        self._taken += 1
        try:
            async with self._limiter:
                yield
        finally:
            self._taken -= 1

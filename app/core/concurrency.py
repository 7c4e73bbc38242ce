"""Worker threads, and bulkheads around heavy work."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import Lock, to_thread

from app.core.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a worker thread."""
    return await to_thread.run_sync(partial(function, *args, **kwargs))


class Bulkhead:
    """Runs heavy work one at a time in this process. At most `capacity` callers run or wait; all others get a 503.

    `share` is how many of these places one party, such as a network or an account, may take. `work` names the work in
    the error, such as "imports". `retry_after` is in seconds.
    """

    def __init__(self, work: str, *, capacity: int, share: int, retry_after: int) -> None:
        self._working = Lock()
        self._capacity, self._share = capacity, share
        self._entered: Counter[str] = Counter()
        self._work, self._retry_after = work, retry_after

    @asynccontextmanager
    async def enter(self, *parties: str) -> AsyncIterator[None]:
        """Take a place and wait for one's turn; Unavailable at once if all places, or those of one party, are taken."""
        everybody = ""
        if self._entered[everybody] >= self._capacity or any(self._entered[party] >= self._share for party in parties):
            raise Unavailable(f"Too many {self._work} at once. Try again shortly.", retry_after=self._retry_after)
        self._entered.update([everybody, *parties])
        try:
            async with self._working:
                yield
        finally:
            self._entered -= Counter([everybody, *parties])  # drops zeros

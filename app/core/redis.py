"""A circuit breaker for Redis: requests wait for it only briefly, and not at all while it is unavailable."""

import logging
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import Any, TypeVar

TIMEOUTS: dict[str, Any] = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}  # seconds
# For clients that requests wait for. A new connection sends its first command at once: redis-py's greetings (HELLO and
# three more) would each wait for an answer.
CLIENT_OPTIONS: dict[str, Any] = {**TIMEOUTS, "protocol": 2, "driver_info": None}
PAUSE = 1.0  # seconds between two attempts while it is unavailable
SLOW = 0.2  # seconds; two calls in a row that take longer count as a failure

T = TypeVar("T")

log = logging.getLogger("muster.redis")


class CircuitBreaker:
    """Skips Redis for a second after each failure, whether it is down, frozen, full, loading or too slow.

    Only the first call that finds Redis unavailable waits for a timeout, and then one call in each second. A request
    waits for two slow answers at most.
    """

    def __init__(self) -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415  # importing it takes 0.1 s, which only Redis users need

        self._failure = RedisError
        self._retry_at = 0.0  # 0 while Redis is available
        self._was_slow = False

    def call(self, use: Callable[[], T], instead: Callable[[], T]) -> T:
        """The result of `use`, or of `instead` if Redis fails now or failed within the last second."""
        if monotonic() < self._retry_at:
            return instead()
        if self._retry_at:
            self._retry_at = monotonic() + PAUSE  # the others do not wait for the outcome of this attempt
        started = monotonic()
        try:
            result = use()
        except self._failure as error:
            if not self._retry_at:
                log.warning("Redis is unavailable: %s", type(error).__name__)
            self._retry_at = monotonic() + PAUSE
            return instead()
        is_slow = monotonic() - started > SLOW
        self._retry_at = monotonic() + PAUSE if is_slow and self._was_slow else 0.0
        self._was_slow = is_slow
        return result


@cache
def circuit_breaker(_redis_url: str) -> CircuitBreaker:
    """The circuit breaker that all clients of this Redis share in this process."""
    return CircuitBreaker()

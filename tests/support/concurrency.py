"""Concurrent requests: calls that begin together, and requests that wait for the test's own lock."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from tests.support.servers import Muster, wait_for

T = TypeVar("T")


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Run the calls in threads that start together, in any order, on a connection each; their results in order."""
    start = Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        started = {index: pool.submit(run, calls[index]) for index in random.sample(range(len(calls)), len(calls))}
    running = [started[index] for index in range(len(calls))]
    # All of what went wrong: the first in order may only follow from another.
    if errors := [error for each in running if (error := each.exception())]:
        raise BaseExceptionGroup("calls failed", errors)
    return [each.result() for each in running]


def wait_until_blocked(muster: Muster) -> None:
    """Wait until a request is blocked by the test's lock: on SQLite in the slot of the one writer, where it waits to
    begin its transaction."""
    if muster.on_sqlite:
        writes = 'muster_slots_used{side="write"} 1.0\n'
        wait_for(lambda: writes in muster.client.get("/metrics").text, what="a request that waits to write")
    else:
        wait_for(lambda: blocked(muster), what="a request that waits for a lock")


def blocked(muster: Muster) -> int:
    """How many requests wait for a lock on PostgreSQL."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name = 'muster'"
    )
    return int(muster.sql(waiting)[0][0])

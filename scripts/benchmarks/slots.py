"""More slow requests at once than there are slots: are all served in time, and does the health check stay fast?"""

import http.client
import socket
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from statistics import median
from threading import Event

from scripts.benchmarks.testbed import Testbed
from tests.support.servers import Muster

READS = 200
HELD = 2  # seconds that each read holds its slot
SLOTS = 16
PROBE_PAUSE = 0.02  # seconds between two health checks


def slots(testbed: Testbed) -> None:
    """200 reads at once, 2 s each, through 16 slots: their time against the arithmetic, and the slowest health check"""
    arithmetic = READS * HELD / SLOTS
    for kind in testbed.databases:
        with (
            testbed.database(kind) as url,
            testbed.muster(
                url, app="tests.support.apps.extra_routes:app", DB_SLOTS=str(SLOTS), SLOT_TIMEOUT="60"
            ) as served,
        ):
            _read_at_once(served, SLOTS, held=0.1)  # a warm-up, which opens every connection to the database
            finished = Event()
            with ThreadPoolExecutor(1) as pool:
                health = pool.submit(_health, served, finished)
                try:
                    statuses, seconds = _read_at_once(served, READS, held=HELD)
                finally:
                    finished.set()
            probes = health.result()
            print(f"slots on {kind}: {READS} reads of {HELD} s at once, {SLOTS} slots")
            print(f"  responses      {dict(Counter(statuses))}, the last after {seconds:.1f} s", end="")
            print(f", x {seconds / arithmetic:.2f} of {arithmetic} s")
            print(f"  health         {len(probes)} times, median {median(probes):.1f} ms, longest {max(probes):.1f} ms")


def _read_at_once(served: Muster, reads: int, *, held: float) -> tuple[list[int], float]:
    """The status of every response, and the seconds until the last one arrived."""
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(_connected(served))) for _ in range(reads)]
        request = f"GET /test/held?seconds={held} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        started = time.perf_counter()
        for client in clients:
            client.sendall(request)
        statuses = [_status(client) for client in clients]
        return statuses, time.perf_counter() - started


def _connected(served: Muster) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=120)


def _status(client: socket.socket) -> int:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status


def _health(served: Muster, finished: Event) -> Sequence[float]:
    """The milliseconds of each GET /health/live, on one connection, until all reads are done."""
    times = []
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as client:
        while not finished.wait(PROBE_PAUSE):
            started = time.perf_counter()
            client.request("GET", "/health/live")
            client.getresponse().read()
            times.append((time.perf_counter() - started) * 1000)
    return times

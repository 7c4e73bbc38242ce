"""Metrics for Prometheus, of this process or of all processes that share PROMETHEUS_MULTIPROC_DIR.

scripts/start.py creates that folder when there are several processes. Each writes files of its own there, and the
process that is scraped adds them up. When a process has died, scripts/start.py removes its gauges; its counters remain.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
registry = CollectorRegistry()

# Labels have few, fixed values: never an id, an address or a path.
_counters = {
    name: Counter(f"muster_{name}", text, labels.split(), registry=registry)
    for name, labels, text in (
        ("errors", "type", "Errors returned to clients, by problem type."),
        ("clients_gone", "", "Clients that left before their response."),
        ("logins", "result", "Sign-ins by password or code: ok or refused."),
        ("rotations", "", "Refresh tokens rotated."),
        ("lost_responses", "", "Refreshes repeated because the first response was lost."),
        ("thefts", "", "Sessions revoked because a refresh token was reused."),
        ("slot_waits", "", "Database sessions that waited for a slot."),
        ("slot_timeouts", "", "Requests refused because no slot became free in time."),
        ("limit_hits", "kind", "Requests, password attempts and e-mails refused by a rate limit."),
        ("limit_storage_failures", "", "Rate limits counted in this process because Redis was unavailable."),
        ("cache_failures", "", "Results computed because Redis was unavailable."),
        ("chat_messages", "", "Chat messages stored."),
        ("chat_subscribers_ended", "ending", "Chat subscribers that ended, by reason; left: by the client."),
        ("chat_gaps", "", "Gaps in a chat room that were filled from the database."),
        ("chat_failures", "", "Failed database reads of the chat, which are retried."),
        ("pubsub_failures", "", "Chat messages that Redis lost between processes; the database fills the gap."),
        ("jobs_ended", "kind result", "Job attempts run by this process: done, retried or failed."),
        ("dispatch_failures", "", "Messages to the workers that Redis did not accept; the sweep sends them again."),
        ("sweep_failures", "", "Job sweeps that failed."),
        ("heartbeat_failures", "", "Job heartbeats that could not be written."),
    )
}
_SUMMED: dict[str, Any] = {"registry": registry, "multiprocess_mode": "livesum"}
slots_used = Gauge("muster_slots_used", "Open database sessions, by side.", ["side"], **_SUMMED)
subscribers = Gauge("muster_chat_subscribers", "Chat subscribers: open sockets, streams and long polls.", **_SUMMED)
_requests = Counter("http_requests", "Requests served.", ["method", "route", "status"], registry=registry)
_seconds = Histogram(
    "http_request_duration_seconds",
    "Seconds from the first byte of a request to the last byte of its response.",
    ["method", "route"],
    registry=registry,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
if _FOLDER is None:
    ProcessCollector(registry=registry)


def count(name: str, **labels: str) -> None:
    """Add one to `muster_<name>_total`."""
    counter = _counters[name]
    (counter.labels(**labels) if labels else counter).inc()


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request. `route` is the path template, or "-" if no route matched."""
    requests, durations = _series(method, route, status)
    requests.inc()
    durations.observe(seconds)


@cache  # finding a series by its labels takes as long as counting in it
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return _requests.labels(method, route, str(status)), _seconds.labels(method, route)


class DatabaseMetrics(Collector):
    """Metrics read from the database at each scrape, because workers run in other processes and on other machines."""

    def __init__(self, jobs: Mapping[tuple[str, str], int] | None) -> None:
        """`jobs` is {(kind, state): number}; None: the database does not respond."""
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        up = "Whether the database responded to this scrape."
        yield GaugeMetricFamily("muster_database_up", up, value=int(self._jobs is not None))
        jobs = "Jobs in the database; retrying: waiting after a failed attempt."
        family = GaugeMetricFamily("muster_jobs", jobs, labels=["kind", "state"])
        for labels, number in (self._jobs or {}).items():
            family.add_metric(labels, number)
        yield family


def exposition(measured: Collector | None = None) -> bytes:
    """The metrics of all processes in Prometheus' text format, with those `measured` for this scrape."""
    scraped = CollectorRegistry()
    if _FOLDER is None:
        scraped.register(registry)
    else:
        MultiProcessCollector(scraped, _FOLDER)  # type: ignore[no-untyped-call]  # the library is only partly typed
    if measured:
        scraped.register(measured)
    return generate_latest(scraped)

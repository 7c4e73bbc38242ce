"""Metrics for Prometheus, of this process or of all processes that share PROMETHEUS_MULTIPROC_DIR.

scripts/start.py creates that folder when there are several processes. Each writes files of its own there, and the
process that is scraped adds them up. The counters of a process that died remain, its gauges are removed.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
_ours = CollectorRegistry()

# Labels have few, fixed values: never an id, an address or a path.
_counters = {
    name: Counter(f"muster_{name}", text, labels.split(), registry=_ours)
    for name, labels, text in (
        ("errors", "type", "Errors returned to clients, by problem type."),
        ("clients_gone", "", "Clients that left before their response."),
        ("logins", "result", "Password sign-ins: ok or refused."),
        ("rotations", "", "Refresh tokens rotated."),
        ("lost_answers", "", "Refreshes repeated because the first response was lost."),
        ("thefts", "", "Sessions revoked because a refresh token was reused."),
        ("slot_waits", "", "Database sessions that waited for a slot."),
        ("slot_timeouts", "", "Requests refused because no slot became free in time."),
        ("limit_hits", "kind", "Requests and password attempts refused by a rate limit."),
        ("limit_storage_failures", "", "Rate limits counted in this process because Redis was unavailable."),
        ("cache_requests", "result", "Results found in the cache (hit) or computed (miss)."),
        ("cache_failures", "", "Results computed because Redis was unavailable."),
        ("messages", "", "Chat messages stored."),
        ("readers_ended", "ending", "Chat sockets, streams and long polls that ended, by reason; left: by the client."),
        ("chat_gaps", "", "Gaps in a chat room that were filled from the database."),
        ("chat_failures", "", "Failed database reads of the chat, which are retried."),
        ("relay_failures", "", "Chat messages that Redis lost between processes; the database fills the gap."),
        ("jobs_ended", "kind result", "Job attempts run by this process: done, retried or failed."),
        ("dispatch_failures", "", "Messages to the workers that Redis did not accept; the sweep sends them again."),
        ("sweep_failures", "", "Job sweeps that failed."),
        ("heartbeat_failures", "", "Job heartbeats that could not be written."),
    )
}
_slots_used = Gauge(
    "muster_slots_used", "Open database sessions, by side.", ["side"], registry=_ours, multiprocess_mode="livesum"
)
readers = Gauge(
    "muster_readers", "Open sockets, streams and long polls of the chat.", registry=_ours, multiprocess_mode="livesum"
)
_requests = Counter("http_requests", "Requests served.", ["method", "route", "status"], registry=_ours)
_seconds = Histogram(
    "http_request_duration_seconds",
    "Seconds from the first byte of a request to the last byte of its response.",
    ["method", "route"],
    registry=_ours,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
# Read from the database at each scrape, because workers run in other processes and often on other machines.
_MEASURED = {
    "muster_jobs": (["kind", "state"], "Jobs in the database; retrying: waiting after a failed attempt."),
    "muster_database_up": ([], "Whether the database responded to this scrape."),
}
if _FOLDER is None:
    ProcessCollector(registry=_ours)


def count(name: str, **labels: str) -> None:
    """Add one to `muster_<name>_total`."""
    counter = _counters[name]
    (counter.labels(**labels) if labels else counter).inc()


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request. `route` is the path template, or "-" if no route matched."""
    _requests.labels(method, route, str(status)).inc()
    _seconds.labels(method, route).observe(seconds)


def slots(side: str) -> Any:
    """The gauge of open sessions on one side."""
    return _slots_used.labels(side)


def value(name: str, **labels: str) -> float:
    """The value of a series in this process, by its full name."""
    return _ours.get_sample_value(name, labels) or 0


def names() -> set[str]:
    """All series names that a scrape can contain, as queries use them."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    counted = {f"{family.name}{suffix}" for family in _ours.collect() for suffix in suffixes[family.type]}
    return counted | set(_MEASURED)


class _Measured(Collector):
    def __init__(self, measured: Mapping[str, Mapping[tuple[str, ...], float]]) -> None:
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        for name, numbers in self._measured.items():
            labels, text = _MEASURED[name]
            family = GaugeMetricFamily(name, text, labels=labels)
            for words, number in numbers.items():
                family.add_metric(words, number)
            yield family


def page(measured: Mapping[str, Mapping[tuple[str, ...], float]]) -> bytes:
    """The metrics of all processes in Prometheus' text format, with `measured` as {name: {labels: value}} added."""
    registry = CollectorRegistry()
    if _FOLDER is None:
        registry.register(_ours)
    else:
        _forget_gauges_of_the_dead(_FOLDER)
        MultiProcessCollector(registry, _FOLDER)  # type: ignore[no-untyped-call]  # the library types a part of itself
    registry.register(_Measured(measured))
    return generate_latest(registry)


def _forget_gauges_of_the_dead(folder: str) -> None:
    for pid in _pids(Path(folder).glob("gauge_live*_*.db")):
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # the same


def _pids(files: Iterable[Path]) -> set[int]:
    return {int(file.stem.rpartition("_")[2]) for file in files}

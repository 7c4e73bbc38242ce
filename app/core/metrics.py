"""What happened, in numbers, for Prometheus: of this process, or of all that share PROMETHEUS_MULTIPROC_DIR.

scripts/start.py makes that folder when there are several processes; each writes files of its own there, and whichever
is scraped adds them up. A process that has died keeps its counts, and loses its gauges.
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

# Labels are few and fixed words: never an id, an address or a path.
_counters = {
    name: Counter(f"muster_{name}", text, labels.split(), registry=_ours)
    for name, labels, text in (
        ("errors", "type", "Refusals and failures, by their problem type."),
        ("clients_gone", "", "Clients who left before their answer."),
        ("logins", "result", "Sign-ins with a password: ok or refused."),
        ("rotations", "", "Refresh tokens that were rotated."),
        ("lost_answers", "", "Refreshes answered again, because the first answer was lost."),
        ("thefts", "", "Sessions revoked because a refresh token was used twice."),
        ("slot_waits", "", "Sessions that had to wait for a slot."),
        ("slot_timeouts", "", "Requests refused because no slot came free."),
        ("limit_hits", "kind", "Requests and passwords refused by a limit."),
        ("limit_storage_failures", "", "Limits counted in this process, because Redis was away."),
        ("cache_requests", "result", "Answers found in the cache (hit) or made (miss)."),
        ("cache_failures", "", "Answers made because the cache's Redis was away."),
        ("messages", "", "Messages of the chat that were stored."),
        ("readers_ended", "ending", "Sockets, streams and long polls of the chat that ended: left is their own wish."),
        ("chat_gaps", "", "Times that a room was caught up with from the database."),
        ("chat_failures", "", "Times that the chat could not read the database, and went on later."),
        ("relay_failures", "", "Messages that Redis did not pass on between processes; the database fills the gap."),
        ("jobs_ended", "kind result", "Attempts of jobs run by this process: done, retried or failed."),
        ("dispatch_failures", "", "Messages to the workers that Redis did not take; the sweep sends them again."),
        ("sweep_failures", "", "Sweeps of the jobs that could not be done."),
        ("heartbeat_failures", "", "Heartbeats of jobs that could not be written."),
    )
}
_slots_used = Gauge(
    "muster_slots_used", "Sessions open now, by side.", ["side"], registry=_ours, multiprocess_mode="livesum"
)
readers = Gauge(
    "muster_readers",
    "Sockets, streams and long polls of the chat, open now.",
    registry=_ours,
    multiprocess_mode="livesum",
)
_requests = Counter("http_requests", "Requests answered.", ["method", "route", "status"], registry=_ours)
_seconds = Histogram(
    "http_request_duration_seconds",
    "From the first byte of a request to the last of its answer.",
    ["method", "route"],
    registry=_ours,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
# Read from the database at a scrape, since workers have processes, and often machines, of their own.
_MEASURED = {
    "muster_jobs": (["kind", "state"], "Jobs in the database; retrying: waiting after an attempt that failed."),
    "muster_database_up": ([], "Whether the database answered this scrape."),
}
if _FOLDER is None:
    ProcessCollector(registry=_ours)


def count(name: str, **labels: str) -> None:
    """Add one to `muster_<name>_total`."""
    counter = _counters[name]
    (counter.labels(**labels) if labels else counter).inc()


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """`route` is the template of its path, and "-" for none."""
    _requests.labels(method, route, str(status)).inc()
    _seconds.labels(method, route).observe(seconds)


def slots(side: str) -> Any:
    """The gauge of the sessions open on one side: inc() and dec() it."""
    return _slots_used.labels(side)


def value(name: str, **labels: str) -> float:
    """What this process alone has counted under the full name of a series."""
    return _ours.get_sample_value(name, labels) or 0


def names() -> set[str]:
    """All names that a scrape can hold, as a query writes them."""
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
    """The text that Prometheus reads: of all processes, and what was measured for it, as {name: {labels: number}}."""
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

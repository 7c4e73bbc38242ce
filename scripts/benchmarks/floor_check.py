"""A guard against slow requests: their CPU may be no more than a multiple of that of the floor's GET /users/me."""

import sys
from collections.abc import Iterator
from statistics import median

from scripts.benchmarks.comparison import Measurement
from scripts.benchmarks.contenders import running_muster
from scripts.benchmarks.load import Sample, interleave, ratios, spread
from scripts.benchmarks.testbed import Testbed

# About one and a half times what docs/performance.md shows. On a busy machine threads cost more than the floor does.
LIMITS = {
    "postgresql": {"me": 7.0, "unchanged": 8.0, "page": 23.0, "create": 23.0, "refresh": 22.0},
    "sqlite": {"me": 3.0, "unchanged": 4.0, "page": 14.0, "create": 14.0, "refresh": 13.0},
}


def is_near_floor(testbed: Testbed) -> bool:
    """Print the multiples beside their limits; whether none is exceeded and no request failed."""
    failures = [failure for kind in testbed.databases for failure in _failures(testbed, kind)]
    for failure in failures:
        print(f"muster: {failure}", file=sys.stderr)
    return not failures


def _failures(testbed: Testbed, kind: str) -> Iterator[str]:
    samples = _measure(testbed, kind)
    floor = [sample.cpu for sample in samples["me", "floor"]]
    for request, limit in LIMITS[kind].items():
        own = samples[request, "Muster"]
        times = ratios([sample.cpu for sample in own], floor)
        print(f"{kind:<12}{request:<12}{median(times):5.1f} times the floor ({spread(times)}), limit {limit:g}")
        if median(times) > limit:
            yield f"{request} on {kind} takes {median(times):.1f} times the CPU of the floor, more than {limit:g}"
        if errors := sum(sample.errors for sample in own):
            yield f"{errors} requests of {request} on {kind} failed"


def _measure(testbed: Testbed, kind: str) -> dict[tuple[str, str], list[Sample]]:
    with testbed.database(kind) as url, running_muster(testbed, url) as muster, testbed.floor(url) as floor:
        return interleave(testbed.rounds, Measurement(testbed).loads(muster, floor, []))

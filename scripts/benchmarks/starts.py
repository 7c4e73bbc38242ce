"""How long a first start and a later one take."""

import time
from statistics import median

from scripts.benchmarks.load import spread
from scripts.benchmarks.testbed import Testbed


def cold_start(testbed: Testbed) -> None:
    """From `python -m scripts.start` to the first 200, on an empty database and on a migrated one"""
    for kind in testbed.databases:
        times: dict[str, list[float]] = {"empty": [], "migrated": []}
        for _ in range(testbed.rounds):
            with testbed.database(kind, migrated=False) as url:
                for own in times.values():
                    own.append(_start(testbed, url))
        print(f"cold-start on {kind}: {testbed.rounds} starts each")
        for name, own in times.items():
            print(f"  {name:<14} median {median(own):.2f} s ({spread(own)})")


def _start(testbed: Testbed, url: str) -> float:
    """The seconds of a start, polled every 20 ms."""
    served = testbed.muster(url)
    started = time.perf_counter()
    with served:
        return time.perf_counter() - started

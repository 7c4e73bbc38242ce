"""Starting: how long a first and a later start keep somebody waiting."""

import time
from statistics import median

from scripts.benchmarks.load import spread
from scripts.benchmarks.testbed import Stage


def cold_start(stage: Stage) -> None:
    """From the exec of `python -m scripts.start` to the first 200: on an empty database, and on one that is ready"""
    for kind in stage.databases:
        times: dict[str, list[float]] = {"empty": [], "migrated": []}
        for _ in range(stage.rounds):
            with stage.database(kind, migrated=False) as url:
                for own in times.values():
                    own.append(_start(stage, url))
        print(f"cold-start on {kind}: {stage.rounds} starts each")
        for name, own in times.items():
            print(f"  {name:<14} median {median(own):.2f} s ({spread(own)})")


def _start(stage: Stage, url: str) -> float:
    """Seconds, as far as asking every 20 ms can tell."""
    served = stage.muster(url)
    started = time.perf_counter()
    with served:
        return time.perf_counter() - started

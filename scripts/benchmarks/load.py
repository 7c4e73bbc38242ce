"""Load from wrk on this same machine, and the figures that compare interleaved rounds of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from statistics import median
from typing import TypeVar

import psutil  # type: ignore[import-untyped]  # it ships no types

from scripts.benchmarks.testbed import Served, cpu_seconds, cpu_seconds_of_tree

CONNECTIONS = 32
SCRIPT = Path(__file__).parent / "load.lua"

K = TypeVar("K")


@dataclass(frozen=True)
class Load:
    """Requests that wrk sends in turn: each a list of headers (`Name: value`), and then the body if it has one."""

    path: str
    requests: Sequence[Sequence[str]]
    method: str = "GET"
    refreshes: bool = False  # each body presents a refresh token: the token of its response is used next


def reads(path: str, tokens: Sequence[str]) -> Load:
    return Load(path, [[bearer(token)] for token in tokens])


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


@dataclass(frozen=True)
class Sample:
    """One round: requests a second, latencies and CPU per request in milliseconds, and failed requests.

    `cpu` is that of the server's processes, `database_cpu` that of PostgreSQL's.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    database_cpu: float
    errors: int


class Wrk:
    """A load on a server, from CONNECTIONS connections unless told otherwise."""

    def __init__(self, folder: Path, load: Load, *, database: psutil.Process | None = None) -> None:
        """`database` is PostgreSQL's first process if its CPU is measured too."""
        self.load, self.database, self.file = load, database, folder / "requests"

    def run(self, served: Served, *, seconds: int, connections: int = CONNECTIONS) -> Sample:
        self.file.write_text("\n".join("\t".join(fields) for fields in self.load.requests))
        _wait_until_idle(served)
        before, database_before = cpu_seconds(served), self._database_seconds()
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
        command += ["--timeout", "10s", "--script", str(SCRIPT), served.url + self.load.path, "--"]
        command += [str(self.file), self.load.method, *(["refresh"] if self.load.refreshes else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
        used, database_used = cpu_seconds(served) - before, self._database_seconds() - database_before
        result = json.loads(done.stdout.partition("RESULT ")[2])
        requests = result["requests"]
        if not requests:  # the server was too busy for a single response
            return Sample(rate=0.0, p50=inf, p99=inf, cpu=inf, database_cpu=inf, errors=result["errors"])
        return Sample(
            rate=requests / result["duration"] * 1e6,
            p50=result["p50"] / 1000,
            p99=result["p99"] / 1000,
            cpu=used / requests * 1000,
            database_cpu=database_used / requests * 1000,
            errors=result["errors"],
        )

    def _database_seconds(self) -> float:
        return cpu_seconds_of_tree(self.database) if self.database else 0.0


def _wait_until_idle(served: Served) -> None:
    """Wait, for ten seconds at most, until the server has finished the work of the round before."""
    before = cpu_seconds(served)
    for _ in range(100):
        time.sleep(0.1)
        now = cpu_seconds(served)
        if now == before:
            return
        before = now


def require_wrk() -> None:
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("muster: installing wrk, which makes the load", file=sys.stderr)
        for step in (["update"], ["install", "--yes", "--no-install-recommends", "wrk"]):
            subprocess.run(["apt-get", "--quiet", *step], check=False, stdout=subprocess.DEVNULL)
    if not shutil.which("wrk"):
        sys.exit("muster: wrk, which makes the load, is missing; install it: sudo apt-get install wrk")


def interleave(rounds: int, runs: Mapping[K, Callable[[], Sample]]) -> dict[K, list[Sample]]:
    """Run each once to warm up, then a, b, a, b and so on, so that a disturbance of the machine affects all of them."""
    for run in runs.values():
        run()
    samples: dict[K, list[Sample]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(run())
    return samples


def report(samples: Mapping[str, Sequence[Sample]]) -> None:
    """Print medians with their relative spread, and the medians of the ratios to the first run, round by round."""
    first = next(iter(samples.values()))
    for name, own in samples.items():
        rate = [sample.rate for sample in own]
        line = f"  {name:<14} {median(rate):6.0f}/s ({spread(rate)})  CPU {median(s.cpu for s in own):5.3f} ms"
        line += f"  p50 {median(s.p50 for s in own):5.1f} ms  p99 {median(s.p99 for s in own):6.1f} ms"
        if own is not first:
            line += f"  throughput x {_ratio(own, first, 'rate')}  CPU x {_ratio(own, first, 'cpu')}"
        if errors := sum(sample.errors for sample in own):
            line += f"  {errors} ERRORS"
        print(line, flush=True)


def _ratio(own: Sequence[Sample], base: Sequence[Sample], field: str) -> str:
    compared = ratios([getattr(sample, field) for sample in own], [getattr(sample, field) for sample in base])
    return f"{median(compared):.2f} ({spread(compared)})"


def ratios(own: Sequence[float], base: Sequence[float]) -> list[float]:
    """The ratios round by round; infinite where the base is nothing, or too little to be measured."""
    return [a / b if b and isfinite(a) else inf for a, b in zip(own, base, strict=True)]


def spread(values: Sequence[float]) -> str:
    """Half the distance from the smallest to the largest value, relative to the median."""
    middle, width = median(values), max(values) - min(values)
    return f"±{width / 2 / middle:.0%}" if middle and isfinite(width) else "±∞"

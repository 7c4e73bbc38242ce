"""Load from wrk on this same machine, and the figures that compare interleaved rounds of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scripts.benchmarks.testbed import cpu_seconds
from tests.support.servers import Muster

CONNECTIONS = 32
PATH = "/api/users/me"

# Every request carries the next token. The results are one line of JSON, with times in microseconds.
SCRIPT = """
local requests, turn = {}, 0
function init(arguments)
  for token in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", nil, {Authorization = "Bearer " .. token})
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.timeout + e.status
  print(string.format('RESULT {"requests": %d, "duration": %d, "p50": %d, "p99": %d, "errors": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors))
end
"""


@dataclass(frozen=True)
class Sample:
    """One round: requests a second, latencies and CPU per request in milliseconds, and failed requests."""

    rate: float
    p50: float
    p99: float
    cpu: float
    errors: int


class Wrk:
    """A load of GET /api/users/me with the access tokens in turn."""

    def __init__(self, folder: Path, tokens: Sequence[str]) -> None:
        self.script, self.tokens = folder / "wrk.lua", folder / "tokens"
        self.script.write_text(SCRIPT)
        self.tokens.write_text("\n".join(tokens))

    def run(self, served: Muster, *, seconds: int, connections: int = CONNECTIONS) -> Sample:
        _wait_until_idle(served)
        before = cpu_seconds(served)
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
        command += ["--timeout", "10s", "--script", str(self.script), served.url + PATH, "--", str(self.tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
        used = cpu_seconds(served) - before
        result = json.loads(done.stdout.partition("RESULT ")[2])
        return Sample(
            rate=result["requests"] / result["duration"] * 1e6,
            p50=result["p50"] / 1000,
            p99=result["p99"] / 1000,
            cpu=used / max(result["requests"], 1) * 1000,
            errors=result["errors"],
        )


def _wait_until_idle(served: Muster) -> None:
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


def interleave(rounds: int, runs: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Run each once to warm up, then a, b, a, b and so on, so that a disturbance of the machine affects all of them."""
    for run in runs.values():
        run()
    samples: dict[str, list[Sample]] = {name: [] for name in runs}
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
    ratios = [getattr(a, field) / getattr(b, field) for a, b in zip(own, base, strict=True)]
    return f"{median(ratios):.2f} ({spread(ratios)})"


def spread(values: Sequence[float]) -> str:
    """Half the distance from the smallest to the largest value, relative to the median."""
    return f"±{(max(values) - min(values)) / 2 / median(values):.0%}"

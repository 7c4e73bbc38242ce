"""Traffic for minutes: nothing is lost, and nothing grows."""

import time
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]  # it ships no types

from scripts.fault_injection.crowd import Crowd, Outcome
from scripts.fault_injection.testbed import Testbed
from tests.support.jobs import OwnJobs
from tests.support.servers import Muster

MIB = 1024 * 1024
CLIENTS = 8  # a crowd would only measure the machine
SPARE = 1.25  # how much of anything a service may grow while nobody comes or goes
PARTS = 5  # of the samples: the second is compared with the last, as the first still warms up


class Sample(NamedTuple):
    memory: float  # MiB
    files: int
    threads: int


def soak(testbed: Testbed, kind: str) -> Iterator[Outcome]:
    """Phones, statements and chat for minutes: memory, open files and threads stay as they are"""
    with testbed.muster(kind) as muster:
        crowd, own, jobs = Crowd(muster, testbed.folder, CLIENTS), OwnJobs(muster), []
        samples: list[Sample] = []
        ends = time.monotonic() + testbed.minutes * 60
        with crowd.traffic(0):
            while time.monotonic() < ends or len(samples) < PARTS:  # a slow machine takes few
                jobs.append(own.start())
                _say(muster, own)
                samples.append(_sample(muster))
                time.sleep(testbed.minutes)  # sixty samples
        for job in jobs:
            own.wait(job)
        size = len(samples) // PARTS
        early, late = (
            Sample(*map(median, zip(*part, strict=True))) for part in (samples[size : 2 * size], samples[-size:])
        )
        figures = (
            f"{testbed.minutes:g} min, {early.memory:.0f} MiB, then {late.memory:.0f}; slowest {crowd.slowest():.1f} s"
        )
        outcome = crowd.outcome(f"soak, {kind}", figures)
        outcome.acknowledged += len(jobs)
        outcome.troubles += [
            f"{name} grew from {before:.0f} to {after:.0f}"
            for name, before, after in zip(Sample._fields, early, late, strict=True)
            if after > before * SPARE + 2
        ]
        yield outcome


def _sample(muster: Muster) -> Sample:
    if muster.process is None:
        raise ValueError("this instance is not running")
    process = psutil.Process(muster.process.pid)
    return Sample(process.memory_info().rss / MIB, process.num_fds(), process.num_threads())


def _say(muster: Muster, own: OwnJobs) -> None:
    muster.client.post("/api/chat/messages", json={"text": "still here"}, headers=own.tokens.bearer).raise_for_status()

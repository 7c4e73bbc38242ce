"""Muster beside what people would use instead: the same requests, interleaved, as tables in Markdown."""

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import psutil  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from scripts.benchmarks.comparison_tables import goals_table, table
from scripts.benchmarks.contenders import PRODUCTION, Contender, MusterContender, running_muster, running_peers
from scripts.benchmarks.goals import Figures, Start
from scripts.benchmarks.load import CONNECTIONS, Load, Sample, Wrk, interleave
from scripts.benchmarks.logins import beside_logins
from scripts.benchmarks.peer_environment import peer_python
from scripts.benchmarks.peer_servers import FastapiUsersPeer, NaivePeer, Peer
from scripts.benchmarks.testbed import Served, Testbed, cpu_seconds, resident_bytes
from tests.support.servers import Muster

REST = 1.0  # seconds after the first response, when the memory at rest is read

Run = Callable[[], Sample]


def peers(testbed: Testbed) -> None:
    """Muster beside fastapi-users and tutorial code, installed for it, with the goals (only when it is named)"""
    peer_python()
    print(f"{_machine()}; {testbed.rounds} interleaved rounds of {testbed.seconds} s, {CONNECTIONS} connections")
    figures: dict[str, Figures] = {}
    for kind in testbed.databases:
        figures[kind] = _measure(testbed, kind)
        print(f"\n{table(kind, figures[kind])}", flush=True)
    print(f"\n{goals_table(figures)}")


def _machine() -> str:
    return f"{time.strftime('%Y-%m-%d')}, {psutil.cpu_count()} cores, Python {platform.python_version()}"


def _measure(testbed: Testbed, kind: str) -> Figures:
    _say(f"{kind}: starts")
    starts = _starts(testbed, kind)
    with ExitStack() as stack:
        url = stack.enter_context(testbed.database(kind))
        muster = stack.enter_context(running_muster(testbed, url))
        floor = stack.enter_context(testbed.floor(url))
        others = stack.enter_context(running_peers(testbed, kind))
        measurement = Measurement(testbed, postmaster(url) if kind == "postgresql" else None)
        runs = measurement.loads(muster, floor, others) | measurement.beside_logins([muster, *others])
        _say(f"{kind}: {len(runs)} loads, {testbed.rounds} rounds of each and one to warm up")
        figures = Figures(interleave(testbed.rounds, runs), starts)
    if refused := sum(status != 200 for status, _ in measurement.logins):
        _say(f"{refused} of {len(measurement.logins)} logins were REFUSED")
    return figures


def _say(what: str) -> None:
    print(f"muster: {what}", file=sys.stderr, flush=True)


# ---- Loads ----


@dataclass(frozen=True)
class Measurement:
    """The runs of a comparison, by request and contender. `database` is PostgreSQL's first process."""

    testbed: Testbed
    database: psutil.Process | None = None
    logins: list[tuple[int, float]] = field(default_factory=list)

    def loads(self, muster: MusterContender, floor: Muster, others: Sequence[Contender]) -> dict[tuple[str, str], Run]:
        """The runs in order: those that are compared are neighbors, so that the same disturbance affects both."""
        everybody = (muster, *others)
        runs = {("unchanged", muster.name): self._load(muster.served, muster.unchanged)}
        runs |= {("me", contender.name): self._load(contender.served, contender.me) for contender in everybody}
        runs |= {("me", "floor"): self._load(floor, muster.me)}
        runs |= {("page", contender.name): self._load(contender.served, contender.page) for contender in everybody}
        runs |= {("refresh", muster.name): self._load(muster.served, muster.refresh)}
        runs |= {("create", contender.name): self._load(contender.served, contender.create) for contender in everybody}
        return runs

    def beside_logins(self, contenders: Sequence[Contender]) -> dict[tuple[str, str], Run]:
        """Reads while others sign in."""
        runs: dict[tuple[str, str], Run] = {}
        for contender in contenders:
            read = self._load(contender.served, contender.me)
            runs["logins", contender.name] = partial(beside_logins, read, contender.people, self.logins)
        return runs

    def _load(self, served: Served, make_load: Callable[[], Load]) -> Run:
        return partial(self._run, served, make_load)

    def _run(self, served: Served, make_load: Callable[[], Load]) -> Sample:
        wrk = Wrk(self.testbed.folder, make_load(), database=self.database)
        return wrk.run(served, seconds=self.testbed.seconds)


def postmaster(url: str) -> psutil.Process | None:
    """PostgreSQL's first process, the parent of all others; None if it is on another machine."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        process = psutil.Process(pid) if pid and psutil.pid_exists(pid) else None
        return process.parent() if process and "postgres" in process.name() else None


# ---- Starts ----


def _starts(testbed: Testbed, kind: str) -> dict[str, list[Start]]:
    """Starts of each contender on a database that has its tables; the first is a warm-up."""
    with ExitStack() as stack:
        urls = {name: stack.enter_context(testbed.database(kind, migrated=name == "Muster")) for name in _STARTED}
        starts: dict[str, list[Start]] = {name: [] for name in _STARTED}
        for _ in range(testbed.rounds + 1):
            for name, make in _STARTED.items():
                starts[name].append(_start(make(testbed, urls[name])))
        return {name: own[1:] for name, own in starts.items()}


_STARTED: Mapping[str, Callable[[Testbed, str], Muster | Peer]] = {
    "Muster": lambda testbed, url: testbed.muster(url, **PRODUCTION),
    "naive": lambda testbed, url: NaivePeer(url, testbed.folder),
    "fastapi-users": lambda testbed, url: FastapiUsersPeer(url, testbed.folder),
}


def _start(served: Muster | Peer) -> Start:
    started = time.perf_counter()
    with served:
        seconds, cpu = time.perf_counter() - started, cpu_seconds(served)
        time.sleep(REST)
        return Start(seconds, cpu, resident_bytes(served) / 2**20)

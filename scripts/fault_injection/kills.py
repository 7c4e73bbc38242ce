"""SIGKILL for the service and the worker while requests and jobs are in progress."""

import time
from collections import Counter
from collections.abc import Iterator
from statistics import median

from scripts.fault_injection.crowd import DROPPED, Crowd, Outcome
from scripts.fault_injection.testbed import Testbed
from tests.support.jobs import OwnJobs
from tests.support.redis_server import RedisServer
from tests.support.servers import wait_for
from tests.support.workers import Worker, service_with_probes

JOBS = 50
BETWEEN = 1.0  # seconds of traffic before and after a kill


def kill(testbed: Testbed, kind: str) -> Iterator[Outcome]:
    """The service is killed and started again, over and over"""
    with testbed.muster(kind) as muster:
        crowd, starts = Crowd(muster, testbed.folder, testbed.clients), []
        for _ in range(testbed.kills):
            with crowd.traffic(BETWEEN):
                muster.kill()
                killed = time.monotonic()
                muster.start()
                starts.append(time.monotonic() - killed)
        figures = f"{testbed.kills} kills, ready again after {median(starts):.1f} s"
        yield crowd.outcome(f"service killed, {kind}", figures, DROPPED)


def kill_worker(testbed: Testbed, kind: str) -> Iterator[Outcome]:
    """The worker is killed while it runs jobs, and another one takes over"""
    with (
        RedisServer(testbed.folder) as redis,
        service_with_probes(kind, testbed.folder, testbed.postgres, REDIS_URL=redis.url) as muster,
    ):
        own, gate = OwnJobs(muster), muster.folder / "gate"
        jobs = own.write_many(JOBS, until=str(gate))
        with Worker(muster) as worker:
            wait_for(lambda: [job for job in own.all() if job["state"] == "running"], what="a running job")
            worker.kill()
        gate.touch()
        started = time.monotonic()
        with Worker(muster):
            wait_for(lambda: all(job["state"] == "done" for job in own.all()), what="jobs that end")
        effects = Counter(own.effects())
        lost, doubled = sum(job not in effects for job in jobs), sum(count > 1 for count in effects.values())
        figures = f"jobs done {time.monotonic() - started:.1f} s after the kill"
        yield Outcome(f"worker killed, {kind}", len(jobs), lost, doubled, [], figures)

"""PostgreSQL and Redis go away under a crowd, killed or frozen, and come back."""

import time
from collections.abc import Callable, Iterator

from scripts.fault_injection.crowd import Crowd, Outcome
from scripts.fault_injection.testbed import Testbed
from tests.support.cluster import Cluster
from tests.support.databases import fresh_database, migrate
from tests.support.jobs import OwnJobs
from tests.support.redis_server import RedisServer
from tests.support.servers import Muster
from tests.support.workers import Worker, service_with_probes

JOBS = 10  # of a person's, before and during the outage


def database(testbed: Testbed, kind: str) -> Iterator[Outcome]:
    """PostgreSQL is killed, then frozen"""
    if kind == "sqlite":
        return
    cluster = Cluster(testbed.folder / "cluster")
    try:
        with fresh_database(kind, testbed.folder, cluster.url, migrated=False) as url:
            migrate(url)
            with Muster(url, testbed.folder) as muster:
                for how, down, up in (
                    ("killed", lambda: cluster.stop("immediate"), cluster.start),
                    ("frozen", cluster.freeze, cluster.thaw),
                ):
                    crowd = Crowd(muster, testbed.folder, testbed.clients)
                    figures = _interrupt(testbed, crowd, down, up)
                    yield crowd.outcome(f"PostgreSQL {how}", figures, 503)
    finally:
        cluster.stop("immediate")


def redis(testbed: Testbed, kind: str) -> Iterator[Outcome]:
    """Redis is killed, then frozen; it forgets its queues, and the jobs have to be done all the same"""
    with (
        RedisServer(testbed.folder) as server,
        service_with_probes(kind, testbed.folder, testbed.postgres, REDIS_URL=server.url) as muster,
    ):
        for how, down, up in (("killed", server.stop, server.start), ("frozen", server.freeze, server.thaw)):
            crowd, own = Crowd(muster, testbed.folder, testbed.clients), OwnJobs(muster)
            jobs = own.write_many(JOBS)

            def more_jobs(own: OwnJobs = own, jobs: list[str] = jobs) -> None:
                jobs += own.write_many(JOBS)

            with Worker(muster):
                figures = _interrupt(testbed, crowd, down, up, meanwhile=more_jobs)
                for job in jobs:
                    own.wait(job)
            outcome = crowd.outcome(f"Redis {how}, {kind}", figures, 503)
            effects = [job for job in own.effects() if job in jobs]
            outcome.acknowledged += len(jobs)
            outcome.lost += len(set(jobs) - set(effects))
            outcome.doubled += len(effects) - len(set(effects))
            yield outcome


def _interrupt(
    testbed: Testbed,
    crowd: Crowd,
    down: Callable[[], None],
    up: Callable[[], None],
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> str:
    """An outage in the midst of traffic; how slow the responses were, and how soon there was one afterward."""
    with crowd.traffic(testbed.seconds):
        before = crowd.slowest()
        down()
        gone = time.monotonic()
        try:
            meanwhile()
            time.sleep(testbed.seconds)
        finally:
            up()
        back = time.monotonic()
    first = min(
        (response.at for response in crowd.responses_since(back) if response.status < 300), default=float("inf")
    )
    return (
        f"{testbed.seconds:g} s, slowest response {before:.1f} s before and {crowd.slowest(gone):.1f} s since, "
        f"served again after {first - back:.1f} s"
    )

"""Real worker processes that are killed, stopped, missing, or several; and which jobs they take first."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError
from sqlmodel import col

from app.models.job import Job
from tests.support.databases import ROOT
from tests.support.jobs import OwnJobs
from tests.support.redis_server import RedisServer
from tests.support.servers import STARTUP, Muster, wait_for
from tests.support.workers import Worker, service_with_probes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def muster(kind: str, folder: Path, postgres: str, redis: RedisServer) -> Iterator[Muster]:
    """An instance without a worker: each test starts its own."""
    with service_with_probes(kind, folder, postgres, REDIS_URL=redis.url) as served:
        yield served


@pytest.fixture
def own(muster: Muster, redis: RedisServer) -> OwnJobs:
    redis.client.flushall()
    return OwnJobs(muster)


def test_a_job_whose_worker_is_killed_stopped_or_frozen_ends_once(muster: Muster, own: OwnJobs, tmp_path: Path) -> None:
    """One story, in which a worker takes over from the one before."""
    go_on = [tmp_path / f"go on {number}" for number in range(3)]
    job_id = own.write(until=str(go_on[0]))
    with Worker(muster) as killed:
        own.wait(job_id, "running")
        killed.kill()
    assert own.wait(job_id, "waiting")["attempts"] == 1
    go_on[0].touch()
    with Worker(muster):
        assert own.wait(job_id)["attempts"] == 2
        released = own.write(until=str(go_on[1]))
        own.wait(released, "running")
    assert own.read(released)["state"] == "waiting", "its worker was stopped"
    go_on[1].touch()
    with Worker(muster) as slow:
        assert own.wait(released)["attempts"] == 1
        lost = own.write(until=str(go_on[2]))
        own.wait(lost, "running")
        stop_until_taken_back(slow, own, lost)
        go_on[2].touch()
        with Worker(muster):
            own.wait(lost)
            os.kill(slow.process.pid, signal.SIGCONT)
            later = own.write()
            own.wait(later)
    assert [own.effects().count(each) for each in (job_id, released, lost)] == [1, 1, 1]


def stop_until_taken_back(worker: Worker, own: OwnJobs, job_id: str) -> None:
    """Freeze the worker with SIGSTOP until its job is taken back.

    A worker that is stopped inside a transaction would keep its lock, on PostgreSQL for the 60 s of
    idle_in_transaction_session_timeout, on SQLite while it is stopped: then let it continue, and stop it again. The job
    that is taken back does not prove that no lock is held: it may have been taken back just before the stop.
    """

    def taken_back() -> bool:
        os.kill(worker.process.pid, signal.SIGSTOP)
        try:
            assert_not_locked(own, job_id)
            own.wait(job_id, "waiting", seconds=10)
        except (AssertionError, OperationalError):
            os.kill(worker.process.pid, signal.SIGCONT)
            return False
        else:
            return True

    wait_for(taken_back, what="a stop without a lock", seconds=300)


def assert_not_locked(own: OwnJobs, job_id: str) -> None:
    """Write the job's row as it is, which waits for half a second at most."""
    patience = {"sqlite": "PRAGMA busy_timeout = 500", "postgresql": "SET LOCAL lock_timeout = 500"}
    with own.muster.engine.begin() as connection:
        connection.execute(text(patience[connection.dialect.name]))
        connection.execute(update(Job).where(col(Job.id) == UUID(job_id)).values(progress=Job.progress))


def test_without_a_worker_a_job_that_was_tried_often_enough_fails(muster: Muster, own: OwnJobs) -> None:
    often, once = own.write(state="running", attempts=4), own.write(state="running", attempts=1)
    archive = own.write(kind="export", state="running", attempts=4)
    job = own.wait(often, "failed")
    ticket = job["error"].partition("ticket ")[2][:12]
    wait_for(lambda: ticket in muster.log, what="the ticket in the log")  # it is written after the row
    assert own.wait(once, "waiting")["attempts"] == 1
    own.wait(archive, "failed")
    rows = muster.sql("SELECT arguments FROM job WHERE kind = 'mail' AND state = 'waiting'")
    waiting = [str(row.arguments) for row in rows if "job-failed" in str(row.arguments)]
    assert [name for name in ("statement", "archive") if any(name in arguments for arguments in waiting)] == [
        "statement",
        "archive",
    ]


@pytest.mark.one_database
def test_jobs_that_redis_lost_are_sent_again_while_others_wait_in_the_queue(own: OwnJobs, redis: RedisServer) -> None:
    lost, kept = own.start(), own.start()
    wait_for(lambda: {lost, kept} <= set(redis.holds("default")), what="both messages")
    while lost in redis.holds("default"):
        redis.client.rpop("default")
    assert kept in redis.holds("default")
    wait_for(lambda: lost in redis.holds("default"), what="the lost one")
    own.forget([lost, kept])


@pytest.mark.one_database
def test_a_high_job_starts_before_default_ones_that_waited_longer(
    muster: Muster, own: OwnJobs, redis: RedisServer, tmp_path: Path
) -> None:
    one_job = ("--concurrency", "1")
    with Worker(muster, *one_job):
        assert started_before_a_high_one(own, redis, tmp_path / "first", workers=1) == 0
        with Worker(muster, *one_job):
            # The other one takes default jobs until the high one has begun: some of them, and all without an order.
            assert started_before_a_high_one(own, redis, tmp_path / "second", workers=2) < 10


def started_before_a_high_one(own: OwnJobs, redis: RedisServer, go_on: Path, *, workers: int) -> int:
    """The number of default jobs that started before a high one, of 30 that waited while each worker was busy."""
    for job_id in own.write_many(workers, until=str(go_on)):
        own.wait(job_id, "running")
    waiting = set(own.write_many(30))
    wait_for(lambda: waiting <= set(redis.holds("default")), what="30 messages")
    high = own.write(queue="high")
    wait_for(lambda: high in redis.holds("high"), what="one more")
    go_on.touch()
    begun = own.wait(high)["started_at"]
    first = [job for job in own.all() if job["id"] in waiting and (job["started_at"] or "Z") < begun]
    own.forget(waiting)
    return len(first)


@pytest.mark.one_database
def test_a_worker_of_one_queue_leaves_the_other_alone(muster: Muster, own: OwnJobs) -> None:
    default, high = own.write(), own.write(queue="high")
    with Worker(muster, "--queues", "high"):
        own.wait(high)
        assert own.read(default)["state"] == "waiting"


@pytest.mark.one_database
def test_redis_holds_the_id_of_a_job_and_nothing_else_about_it(own: OwnJobs, redis: RedisServer) -> None:
    job_id = own.start()
    wait_for(lambda: job_id in redis.holds("default"), what="a message")


@pytest.mark.one_database
def test_the_script_starts_a_worker_from_any_folder(muster: Muster, own: OwnJobs, tmp_path: Path) -> None:
    command = [str(ROOT / "scripts" / "worker"), "--queues", "default"]
    job_id = own.start()
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **muster.settings}) as process:
        try:
            own.wait(job_id)
            process.terminate()
            process.wait(STARTUP)
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.one_database
def test_a_worker_without_redis_prints_one_line_that_names_the_setting(muster: Muster, tmp_path: Path) -> None:
    log, environment = tmp_path / "log", {**os.environ, **muster.settings, "REDIS_URL": ""}
    worker = muster.launch(["celery", "--app", "app.worker", "worker"], environment, log)
    assert worker.wait(STARTUP) == 1
    assert log.read_text().startswith("muster: REDIS_URL: a worker needs redis://")
    assert log.read_text().count("\n") == 1

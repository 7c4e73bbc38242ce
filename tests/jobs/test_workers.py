"""Jobs through a real Redis and a real worker process: failures, jobs lost on the way, and cancellation."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event
from uuid import UUID, uuid4

import pytest

from app.jobs.backends import CeleryBackend
from tests.support.apps.job_probes import MESSAGE, STALE_AFTER
from tests.support.jobs import OwnJobs
from tests.support.redis_server import RedisServer
from tests.support.servers import STARTUP, Muster, text_of, wait_for
from tests.support.workers import Worker, service_with_probes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def muster(kind: str, folder: Path, postgres: str, redis: RedisServer) -> Iterator[Muster]:
    with service_with_probes(kind, folder, postgres, REDIS_URL=redis.url) as served:
        yield served


@pytest.fixture(scope="module")
def worker(muster: Muster) -> Iterator[Worker]:
    """One worker for all tests of this module."""
    with Worker(muster) as started:
        yield started


@pytest.fixture
def own(muster: Muster) -> OwnJobs:
    return OwnJobs(muster)


def test_the_worker_runs_jobs_that_the_service_accepted(muster: Muster, worker: Worker) -> None:
    own = OwnJobs(muster, muster.register())
    muster.mails(own.account.email)
    own.verify()
    job = own.wait(own.start(mail=True))
    assert (job["attempts"], job["progress"], job["error"]) == (1, 1, None)
    mails = muster.mails(own.account.email, at_least=2)
    assert {mail["Subject"] for mail in mails} == {"Confirm your e-mail address", "Your statement"}
    assert muster.client.get(job["result"], headers=own.tokens.bearer).status_code == 200
    assert worker.process.poll() is None


@pytest.mark.one_database
@pytest.mark.usefixtures("worker")
def test_an_unknown_job_and_its_result_are_404(muster: Muster, own: OwnJobs) -> None:
    for path in ("", "/result"):
        answer = muster.client.get(f"/api/jobs/{uuid4()}{path}", headers=own.tokens.bearer)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/job-not-found")


def test_a_failing_job_is_retried_at_growing_intervals_then_fails_and_notifies_its_owner(
    muster: Muster, own: OwnJobs, worker: Worker
) -> None:
    job_id = own.write(fails=True)
    job = own.wait(job_id, "failed")
    mail = muster.mails(own.account.email, subject="Your statement could not be created")[0]
    wait_for(lambda: worker.log.count(f"job {job_id} ") == 4, what="four lines in the log")
    lines = [line for line in worker.log.splitlines() if job_id in line]
    assert job["attempts"] == len(lines) == 4
    assert all(f"attempt {number} of 4: RuntimeError" in line for number, line in enumerate(lines, 1))
    times = [datetime.fromisoformat(line[:23].replace(",", ".")) for line in lines]
    waits = [(after - before).total_seconds() for before, after in pairwise(times)]
    assert all(wait > least for wait, least in zip(waits, (0, 0.2, 1), strict=True))  # of 0.1, 0.4 and 1.6 seconds
    ticket = lines[-1].partition("ticket ")[2][:12]
    assert ticket in job["error"]
    assert ticket in text_of(mail)
    assert "in statement\n" in worker.log  # the place, though not the message
    assert MESSAGE not in worker.log
    assert own.account.email not in worker.log + muster.log
    assert job_id not in own.effects()


@pytest.mark.usefixtures("worker")
def test_a_duplicate_message_does_not_shorten_the_wait_before_a_retry(own: OwnJobs, redis: RedisServer) -> None:
    job_id, is_sent = own.write(attempts=1, due_in=timedelta(hours=1)), Event()
    backend = CeleryBackend(redis.url, lambda _: is_sent.set())
    backend.send(UUID(job_id), "default")
    assert is_sent.wait(STARTUP)
    backend.close()
    wait_for(lambda: not redis.holds("default") and redis.client.hlen("unacked") == 0, what="the end of the message")
    job = own.read(job_id)
    assert (job["state"], job["attempts"]) == ("waiting", 1)
    own.forget([job_id])


@pytest.mark.usefixtures("worker")
def test_a_dispatch_lost_before_the_broker_is_repeated_by_the_sweep(own: OwnJobs, redis: RedisServer) -> None:
    with redis.stopped():
        job_id = own.start()
    own.wait(job_id)


@pytest.mark.usefixtures("worker")
def test_a_service_killed_between_commit_and_dispatch_has_lost_nothing(
    muster: Muster, own: OwnJobs, redis: RedisServer
) -> None:
    with redis.stopped():
        job_id = own.start()
        muster.kill()
    muster.start()
    own.wait(job_id)


@pytest.mark.usefixtures("worker")
def test_an_outage_of_redis_in_the_middle_of_many_jobs_loses_none(own: OwnJobs, redis: RedisServer) -> None:
    before = len(own.effects())
    jobs = own.write_many(20)
    jobs += [own.start() for _ in range(4)]
    wait_for(lambda: len(own.effects()) > before, what="some of them")
    with redis.stopped():
        time.sleep(STALE_AFTER.total_seconds() + 1)  # the outage itself
    for job_id in jobs:
        own.wait(job_id)
    assert sorted(own.effects()) == sorted({*own.effects(), *jobs[:20]})


def test_a_worker_outlasts_a_redis_that_refuses_its_commands(own: OwnJobs, redis: RedisServer, worker: Worker) -> None:
    before = worker.log.count("read only replica")
    with redis.read_only():
        wait_for(lambda: worker.log.count("read only replica") > before, what="a command that was refused")
        job_id = own.start()
    own.wait(job_id)
    assert worker.process.poll() is None


@pytest.mark.usefixtures("worker")
def test_canceling_stops_a_running_job(muster: Muster, own: OwnJobs, tmp_path: Path) -> None:
    job_id = own.write(until=str(tmp_path / "never"))
    job = own.wait(job_id, "running")
    assert 0 <= job["progress"] < 1
    path = f"/api/jobs/{job_id}"
    assert [muster.client.delete(path, headers=own.tokens.bearer).status_code for _ in range(2)] == [204, 204]
    others = own.write_many(4)  # as many as the worker runs at once
    for other in others:
        own.wait(other)
    assert own.read(job_id)["state"] == "cancelled"
    assert job_id not in own.effects()
    answer = muster.client.delete(f"/api/jobs/{others[0]}", headers=own.tokens.bearer)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/job-ended")

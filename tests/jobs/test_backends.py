"""A back end that is sent a job again while the job still waits runs it once, so that queues do not grow."""

from collections.abc import Iterator
from threading import Event
from uuid import UUID

import pytest

from app.jobs.backends import CeleryBackend, ThreadBackend
from tests.support.redis_server import RedisServer
from tests.support.servers import wait_for

ONE, TWO = UUID(int=1), UUID(int=2)


class Held:
    """The callback of a back end, whose first call blocks until it is released."""

    def __init__(self) -> None:
        self.received: list[UUID] = []
        self.go_on = Event()

    def __call__(self, job_id: UUID) -> None:
        self.received.append(job_id)
        assert self.go_on.wait(60)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go_on.set()


def send_while_held(backend: CeleryBackend | ThreadBackend, held: Held) -> None:
    backend.send(ONE, "default")
    wait_for(lambda: held.received == [ONE], what="the first")
    for _ in range(3):
        backend.send(TWO, "default")
    held.go_on.set()
    wait_for(lambda: TWO in held.received, what="the second")
    backend.send(TWO, "default")  # it has had its turn: it may be sent again
    wait_for(lambda: len(held.received) == 3, what="the third")


def test_the_thread_backend_runs_a_waiting_job_once(held: Held) -> None:
    backend = ThreadBackend(lambda job_id, _queue: held(job_id))
    send_while_held(backend, held)
    backend.close()
    assert held.received == [ONE, TWO, TWO]


def test_the_celery_backend_sends_a_waiting_job_once(held: Held, redis: RedisServer) -> None:
    redis.client.flushall()
    backend = CeleryBackend(redis.url, held)
    send_while_held(backend, held)
    assert redis.holds("default") == [str(job_id) for job_id in (TWO, TWO, ONE)]
    backend.close()
    assert held.received == [ONE, TWO, TWO]

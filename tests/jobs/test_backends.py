"""What an engine is told twice while the first still waits for its turn, it does once: a slow day grows no queue."""

from collections.abc import Iterator
from threading import Event
from uuid import UUID

import pytest

from app.jobs.backends import Broker, Threads
from tests.support.redis_server import RedisServer
from tests.support.servers import wait_for

ONE, TWO = UUID(int=1), UUID(int=2)


class Held:
    """What an engine calls: it stays in the first call until it is let go."""

    def __init__(self) -> None:
        self.told: list[UUID] = []
        self.go_on = Event()

    def __call__(self, job_id: UUID) -> None:
        self.told.append(job_id)
        assert self.go_on.wait(60)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go_on.set()


def send_while_held(engine: Broker | Threads, held: Held) -> None:
    engine.send(ONE, "default")
    wait_for(lambda: held.told == [ONE], what="the first")
    for _ in range(3):
        engine.send(TWO, "default")
    held.go_on.set()
    wait_for(lambda: TWO in held.told, what="the second")
    engine.send(TWO, "default")  # it has had its turn: it may be told again
    wait_for(lambda: len(held.told) == 3, what="the third")


def test_the_thread_backend_runs_a_waiting_job_once(held: Held) -> None:
    engine = Threads(held)
    send_while_held(engine, held)
    assert engine.is_empty("default")
    engine.close()
    assert held.told == [ONE, TWO, TWO]


def test_the_celery_backend_sends_a_waiting_job_once(held: Held, redis: RedisServer) -> None:
    redis.client.flushall()
    engine = Broker(redis.url, held)
    send_while_held(engine, held)
    assert redis.holds("default") == [str(job_id) for job_id in (TWO, TWO, ONE)]
    engine.close()
    assert held.told == [ONE, TWO, TWO]

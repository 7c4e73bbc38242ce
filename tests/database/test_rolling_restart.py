"""Two instances on one database, restarted one after the other under load: no request fails."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from threading import Event, Lock
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.redis_server import RedisServer
from tests.support.servers import Muster, Tokens, wait_for

pytestmark = pytest.mark.slow

BODY = {"type": "buy", "figi": "BBG000B9XRY4", "quantity": "1", "date": "2026-01-01T00:00:00Z"}


class Balancer:
    """Sends each request to the next instance in rotation, as a proxy in front of them would."""

    def __init__(self, *instances: Muster) -> None:
        self.answers: Counter[int] = Counter()
        # Connections of its own: those of an instance's client end with a stop.
        self._clients = {instance.url: instance.another_client() for instance in instances}
        self._rotation = list(instances)
        self._unsent: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()
        self._turn = count()
        self._lock = Lock()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._lock:
            instance = self._rotation[next(self._turn) % len(self._rotation)]
            self._unsent[instance.url] += 1
            self._under_way[instance.url] += 1

        def trace(event: str, _info: Any) -> None:
            if event == "http11.send_request_body.complete":
                with self._lock:
                    self._unsent[instance.url] -= 1

        try:
            answer = self._clients[instance.url].request(method, path, extensions={"trace": trace}, **options)
        finally:
            with self._lock:
                self._under_way[instance.url] -= 1
        with self._lock:
            self.answers[answer.status_code] += 1
        return answer

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def wait_for_more(self, answers: int) -> None:
        enough = self.answers.total() + answers
        wait_for(lambda: self.answers.total() >= enough, what=f"{answers} more answers")

    def restart(self, instance: Muster) -> None:
        """Take it out of rotation, send SIGTERM while requests are under way, start it, and put it back when ready."""
        wait_for(lambda: self._under_way[instance.url] > 0, what="a request in flight")
        with self._lock:
            self._rotation.remove(instance)
        wait_for(lambda: self._unsent[instance.url] == 0, what="the requests that were being sent")
        instance.stop()
        wait_for(lambda: self._under_way[instance.url] == 0, what="threads to take their answers")
        self._clients[instance.url].close()
        self._clients[instance.url] = instance.another_client()
        instance.start()
        with self._lock:
            self._rotation.append(instance)


@pytest.fixture
def two(serve: Callable[..., Muster], redis: RedisServer) -> list[Muster]:
    settings = {"REDIS_URL": redis.url, "PUBLIC_URL": "http://localhost"}
    return [serve(**settings), serve(**settings)]


def load(balancer: Balancer, tokens: Tokens, stopping: Event) -> int:
    """Write and read until `stopping` is set; return the number of operations answered as created."""
    created = 0
    while not stopping.wait(0.25):
        headers = {**tokens.bearer, "Idempotency-Key": uuid4().hex}
        created += balancer.request("POST", "/api/operations", json=BODY, headers=headers).status_code == 201
        balancer.request("GET", "/api/operations?limit=5", headers=tokens.bearer)
    return created


def test_a_rolling_restart_loses_no_request(two: list[Muster]) -> None:
    stopping, people = Event(), [two[0].new_account().tokens() for _ in range(4)]
    with closing(Balancer(*two)) as balancer, ThreadPoolExecutor(len(people)) as pool:
        loads = [pool.submit(load, balancer, tokens, stopping) for tokens in people]
        try:
            for instance in two:
                balancer.wait_for_more(20)
                balancer.restart(instance)
            balancer.wait_for_more(20)
        finally:
            stopping.set()
        created = sum(each.result() for each in loads)
    assert set(balancer.answers) == {200, 201}
    assert balancer.answers[201] == created
    assert two[0].sql("SELECT count(*) AS n FROM operation")[0].n == created

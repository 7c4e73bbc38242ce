"""PostgreSQL goes away and comes back: 503 meanwhile, no failure afterward, no connection of a client dropped."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.support.cluster import Cluster
from tests.support.databases import fresh_database
from tests.support.servers import Muster, Tokens, wait_for
from tests.support.sockets import Socket, new_room

pytestmark = pytest.mark.slow

CLIENTS = 8
PAUSE = 0.05  # seconds between the requests of a client


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Cluster:
    return Cluster(folder / f"cluster-{uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def muster(cluster: Cluster, folder: Path) -> Iterator[Muster]:
    with (
        fresh_database("postgresql", folder, cluster.url, migrated=False) as url,
        Muster(url, folder) as served,  # which migrates it
    ):
        yield served


@dataclass
class Traffic:
    """Clients that read and write on keep-alive connections until they are told to stop."""

    muster: Muster
    tokens: Tokens
    answers: list[httpx.Response] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def go_on(self, number: int) -> int:
        """The number of connections that this client needed."""
        ports = set()
        with self.muster.another_client() as client:
            client.headers.update(self.tokens.bearer)
            while not self.stopped.wait(PAUSE):
                answer = (
                    client.patch("/api/users/me", json={"name": "Ada"}) if number % 2 else client.get("/api/users/me")
                )
                ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
                self.answers.append(answer)
        return len(ports)

    def has(self, status: int, *, since: int) -> bool:
        return any(answer.status_code == status for answer in self.answers[since:])


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_an_outage_under_load_is_503_and_leaves_no_failure_behind(muster: Muster, cluster: Cluster, mode: str) -> None:
    traffic = Traffic(muster, muster.new_account().tokens())
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(traffic.go_on, number) for number in range(CLIENTS)]
        try:
            wait_for(lambda: len(traffic.answers) > 50, what="traffic")
            with cluster.stopped(mode):
                down = len(traffic.answers)
                wait_for(lambda: len(traffic.answers) > down + 50, what="traffic without a database")
            up = len(traffic.answers)
            wait_for(lambda: len(traffic.answers) > up + 2 * CLIENTS, what="the requests that straddle the start")
            after = len(traffic.answers)
            wait_for(lambda: len(traffic.answers) > after + 50, what="traffic again")
        finally:
            traffic.stopped.set()
        connections = [client.result() for client in clients]
    assert {answer.status_code for answer in traffic.answers} == {200, 503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in traffic.answers if answer.status_code == 503)
    assert {answer.status_code for answer in traffic.answers[after:]} == {200}
    assert connections == [1] * CLIENTS


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_nobody_notices_a_restart_while_idle(muster: Muster, cluster: Cluster, mode: str) -> None:
    tokens = muster.new_account().tokens()
    with ThreadPoolExecutor(CLIENTS) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: muster.me(tokens), range(50))} == {200}
        with cluster.stopped(mode):
            pass
        assert {answer.status_code for answer in pool.map(lambda _: muster.me(tokens), range(50))} == {200}


def test_readiness_fails_while_the_database_is_unavailable(muster: Muster, cluster: Cluster) -> None:
    size = muster.log_file.stat().st_size
    with cluster.stopped("fast"):
        assert muster.client.get("/health/live").status_code == 200
        ready = muster.client.get("/health/ready")
        assert (ready.status_code, ready.headers["content-type"]) == (503, "application/problem+json")
        token = muster.token(grant_type="password", username="ada@example.com", password="violet-tandem-harbor")
        assert (token.status_code, token.json()["error"]) == (503, "temporarily_unavailable")
        assert re.findall("(not ready|unavailable): connection .+ failed", muster.log_after(size)) == [
            "not ready",
            "unavailable",
        ]
    assert muster.client.get("/health/ready").status_code == 200


def test_a_server_that_became_read_only_is_a_503_that_says_why_until_it_can_be_written(
    muster: Muster, cluster: Cluster
) -> None:
    tokens, size = muster.new_account().tokens(), muster.log_file.stat().st_size

    def rename() -> httpx.Response:
        return muster.client.patch("/api/users/me", json={"name": uuid4().hex}, headers=tokens.bearer)

    assert rename().status_code == 200
    with read_only(cluster):
        refused = wait_for(lambda: answer if (answer := rename()).status_code != 200 else None, what="a refusal")
        assert (refused.status_code, refused.headers.get("retry-after")) == (503, "2")
        assert muster.me(tokens).status_code == 200
        assert "unavailable: cannot execute UPDATE in a read-only transaction" in muster.log_after(size)
    wait_for(lambda: rename().status_code == 200, what="a server that can be written")
    assert "Traceback" not in muster.log_after(size)


@contextmanager
def read_only(cluster: Cluster) -> Iterator[None]:
    """The server takes no writes, not even on connections that are open already, like a replica."""
    with psycopg.connect(cluster.url, autocommit=True) as server:
        server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        server.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            server.execute("ALTER SYSTEM RESET default_transaction_read_only")
            server.execute("SELECT pg_reload_conf()")


def test_an_open_socket_survives_a_restart_of_postgresql(cluster: Cluster, muster: Muster) -> None:
    """Messages during the outage are refused with a time to retry; afterward the sequence continues."""
    size = muster.log_file.stat().st_size
    ada, eve, room = muster.new_account().tokens(), muster.new_account().tokens(), new_room()
    with Socket(muster, ada, room=room) as speaker, Socket(muster, eve, room=room) as listener:
        speaker.ready()
        listener.ready()
        with cluster.stopped("immediate"):
            speaker.say("into the void")
            problem = speaker.problem()
            assert (problem["status"], problem["type"]) == (503, "/problems/unavailable")
            assert problem["retry_after"] > 0
        wait_for(lambda: muster.client.get("/health/ready").status_code == 200, what="a ready service")
        speaker.say("back again")
        for socket in (speaker, listener):
            message = socket.message()
            assert (message["text"], message["number"]) == ("back again", 1)
    assert muster.log_after(size).count("the chat could not") <= 2, (
        "each of its two polls logs it once, however long the outage lasts"
    )

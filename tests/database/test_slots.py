"""The session dependency under load: slots, time-outs, vanishing clients, lost updates, reads that cannot write."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import anyio
import httpx
import pytest
from sqlalchemy import create_engine

from app.core.database import Side
from tests.support.databases import ROOT, fresh_database
from tests.support.metrics import number, scrape
from tests.support.processes import fork_script
from tests.support.servers import Muster, wait_for

pytestmark = pytest.mark.slow

APP = "tests.support.apps.extra_routes:app"


@pytest.fixture(scope="module")
def extra(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    with (
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, app=APP, DB_SLOTS="16", SLOT_TIMEOUT="60") as served,
    ):
        served.sql("CREATE TABLE number (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)")
        served.sql("INSERT INTO number VALUES (1, 0)")
        yield served


def _get(muster: Muster, path: str) -> httpx.Response:
    return muster.client.get(path, timeout=120)


def test_200_slow_reads_at_once_are_all_answered_while_health_answers(extra: Muster) -> None:
    with ThreadPoolExecutor(200) as pool, extra.another_client() as client:
        requests = [pool.submit(_get, extra, "/test/held?seconds=0.2") for _ in range(200)]

        def are_done() -> bool:
            assert client.get("/health/live").status_code == 200
            return all(request.done() for request in requests)

        wait_for(are_done, what="all answers")
    assert {request.result().status_code for request in requests} == {200}


def test_a_request_that_waits_too_long_for_a_slot_gets_503_and_leaks_nothing(serve: Callable[..., Muster]) -> None:
    muster = serve(app=APP, DB_SLOTS="2", SLOT_TIMEOUT="0.3")
    with ThreadPoolExecutor(20) as pool:
        answers = [
            request.result() for request in [pool.submit(_get, muster, "/test/held?seconds=1") for _ in range(20)]
        ]
    late = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in late)
    assert late[0].json()["type"] == "/problems/unavailable"
    _assert_all_slots_are_free(muster, slots=2)


def test_a_timeout_of_the_request_itself_is_not_taken_for_a_wait_for_a_slot() -> None:
    async def hold() -> int:
        slots = anyio.Semaphore(1, max_value=1, fast_acquire=True)
        side = Side(create_engine("sqlite://"), slots, timeout=60, commits=False)
        with pytest.raises(TimeoutError, match="its own"):
            async with side.slot():
                raise TimeoutError("its own")
        return slots.value

    assert asyncio.run(hold()) == 1


def test_many_slow_requests_of_a_person_delay_that_person_and_nobody_else(
    serve: Callable[..., Muster], tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    muster = serve(app=APP, DB_SLOTS="2")
    many, one = (muster.new_account().tokens().bearer for _ in "ab")

    def hold(bearer: dict[str, str], **until: str) -> int:
        return muster.client.get("/test/held/mine", params=until, headers=bearer).status_code

    with ThreadPoolExecutor(6) as pool:
        try:
            slow = [pool.submit(hold, many, until=str(go_on)) for _ in range(6)]
            wait_for(lambda: number(scrape(muster), "muster_slot_waits_total") >= 5, what="a queue")
            assert hold(one) == 200
            assert not any(request.done() for request in slow)
        finally:
            go_on.touch()
    assert {request.result() for request in slow} == {200}


def test_slots_and_pool_are_intact_after_100_clients_vanished_while_waiting(extra: Muster) -> None:
    with ThreadPoolExecutor(16) as pool:
        holders = [pool.submit(_get, extra, "/test/held?seconds=1") for _ in range(16)]
        for _ in range(100):
            with closing(socket.create_connection(("127.0.0.1", extra.port))) as client:
                client.sendall(b"GET /test/held?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait(holders)
    # If the vanished clients were still served, 100 seconds of queries would wait in front of this request.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_get, extra, "/test/held?seconds=0").result(timeout=30).status_code == 200
    _assert_all_slots_are_free(extra, slots=16)


def _assert_all_slots_are_free(muster: Muster, *, slots: int) -> None:
    """Check that as many reads as there are slots run side by side."""
    with ThreadPoolExecutor(slots) as pool:
        answers = list(pool.map(lambda _: _get(muster, "/test/held?seconds=0.1"), range(slots)))
    assert {answer.status_code for answer in answers} == {200}


def test_clients_that_read_and_write_lose_nothing_while_readers_go_on(extra: Muster) -> None:
    before = _get(extra, "/test/number").json()["value"]

    def ten() -> set[int]:
        with extra.another_client() as client:
            return {client.post("/test/number").status_code for _ in range(10)}

    with ThreadPoolExecutor(10) as pool, extra.another_client() as reader:
        writers = [pool.submit(ten) for _ in range(10)]
        seen = [before]
        while not all(writer.done() for writer in writers):
            seen.append(reader.get("/test/number").json()["value"])
    assert set.union(*[writer.result() for writer in writers]) == {200}
    assert seen == sorted(seen)
    assert _get(extra, "/test/number").json()["value"] == before + 100


def test_an_error_rolls_back_what_its_request_wrote(extra: Muster) -> None:
    before = _get(extra, "/test/number").json()["value"]
    assert extra.client.post("/test/number/refused").status_code == 404
    assert _get(extra, "/test/number").json()["value"] == before


def test_the_database_refuses_a_write_in_a_safe_method(extra: Muster) -> None:
    before = _get(extra, "/test/number").json()["value"]
    assert _get(extra, "/test/write").status_code == 500
    assert _get(extra, "/test/number").json()["value"] == before


def test_an_unexpected_error_is_a_ticket_and_the_connection_lives_on(extra: Muster) -> None:
    with extra.another_client() as client:
        broken = client.get("/test/broken", headers={"Origin": "http://elsewhere.example"})
        assert broken.status_code == 500
        assert "secret" not in broken.text
        assert wait_for(lambda: broken.json()["ticket"] in extra.log, what="the ticket in the log")
        stream = broken.extensions["network_stream"].get_extra_info("client_addr")
        again = client.get("/health/live")
        assert again.extensions["network_stream"].get_extra_info("client_addr") == stream


def test_slots_and_pool_are_intact_after_requests_were_canceled_at_every_moment(muster: Muster) -> None:
    tokens = muster.new_account().tokens()
    script = ROOT / "tests" / "support" / "cancellations.py"
    status, said = fork_script(script, tokens.access, environment={**os.environ, **muster.settings})
    assert status == 0, said
    report = json.loads(said.splitlines()[-1])
    assert report["canceled"] > 10
    assert report["finished"] > 10
    assert report["checked_out"] == {"read": 0, "write": 0}
    writers = 1 if muster.on_sqlite else report["slots"]
    assert report["free"] == {"read": report["slots"], "write": writers}
    assert muster.me(tokens).status_code == 200

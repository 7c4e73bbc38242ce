"""Several server processes: they count together, one that dies is replaced, and none outlives its supervisor."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
from uvicorn import Config

from app.core.shutdown import install_shutdown_handlers
from scripts.start import Worker
from tests.support.connections import assert_each_family_is_known_by_its_own_address, has_ipv6, is_listening
from tests.support.metrics import number, scrape
from tests.support.processes import PlainProcess
from tests.support.redis_server import RedisServer
from tests.support.servers import NO_TLS, STARTUP, Muster, Tokens, wait_for

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

ROUTE = {"method": "GET", "route": "/api/users/me", "status": "200"}


@pytest.fixture
def muster(database_url: str, folder: Path, redis: RedisServer) -> Iterator[Muster]:
    host = "::" if has_ipv6() else "127.0.0.1"
    settings = {"HOST": host, "WORKERS": "2", "REDIS_URL": redis.url, "TRUSTED_PROXIES": "127.0.0.1,10.0.0.0/8"}
    with Muster(database_url, folder, **settings) as served:
        yield served


def test_two_processes_serve_one_address_count_together_and_live_and_die_as_one(muster: Muster) -> None:
    """One story, since each process imports the whole application again."""
    tokens = muster.new_account().sign_in()
    if has_ipv6():
        assert_each_family_is_known_by_its_own_address(muster)
    signed_in = number(scrape(muster), "muster_logins_total", result="ok")

    # They count together.
    assert signed_in >= 1
    assert [me(muster, tokens) for _ in range(40)] == [200] * 40
    wait_for(lambda: number(scrape(muster), "http_requests_total", **ROUTE) == 40, what="40 counted requests")

    # One that is killed is replaced, and what it counted stays.
    supervisor, first, second = processes_of(muster)
    counted = folder_of(first)
    first.kill()
    wait_for(lambda: {second} < set(processes_of(muster)[1:]) - {first}, what="another worker")
    wait_for(lambda: f"process {first.pid} ended with -9" in muster.log, what="the line in the log")
    assert not [*counted.glob(f"gauge_*_{first.pid}.db")]
    answered = sum(wait_for(lambda: answers(muster, tokens), what="an answer") for _ in range(20))
    # Whoever answered may count a moment later, and the sweep of the new process takes a slot for a moment.
    wait_for(lambda: number(scrape(muster), "http_requests_total", **ROUTE) == 40 + answered, what="all to be counted")
    wait_for(lambda: number(scrape(muster), "muster_slots_used", side="read") == 0, what="free slots")
    assert number(scrape(muster), "muster_logins_total", result="ok") == signed_in

    # A supervisor that dies takes all down, and what it left is not counted again.
    workers = processes_of(muster)[1:]
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_for(lambda: not [worker for worker in workers if worker.is_running()], what="the end of the workers")
    assert not is_listening(muster)
    muster.kill()
    assert list(counted.iterdir())
    shutil.rmtree(counted)  # only an orderly end removes it
    size = muster.log_file.stat().st_size
    muster.launch = PlainProcess  # a forked process cleans nothing up when it ends
    muster.start()
    assert number(scrape(muster), "http_requests_total", **ROUTE) == 0

    # Two interrupts, as a terminal sends them to all processes, stop the service quietly, and it cleans up.
    everyone = processes_of(muster)
    counted = folder_of(everyone[1])
    wait_for(lambda: all(has_swept(worker) for worker in everyone[1:]), what="workers that have started")
    for _ in range(2):
        for process in everyone:
            process.send_signal(signal.SIGINT)
    assert muster.process is not None
    assert muster.process.wait(STARTUP) == 0
    assert "Traceback" not in muster.log
    assert "ERROR" not in muster.log_after(size)
    assert not counted.exists()


def test_a_worker_that_dies_while_starting_is_not_waited_for_and_loses_its_gauges(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    worker, began = Worker(Config("app.main:app"), []), time.monotonic()
    worker.start()
    gauges = tmp_path / f"gauge_livesum_{worker.pid}.db"
    gauges.touch()
    psutil.Process(worker.pid).kill()
    assert not worker.ping(STARTUP)
    assert time.monotonic() - began < STARTUP
    worker.kill()
    worker.join()  # as when all are restarted
    assert not gauges.exists()


def test_a_second_signal_inside_the_handler_of_the_first_does_not_force_the_shutdown() -> None:
    received: list[int] = []

    def interrupt(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "shut_down":
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    async def receive() -> None:
        signal.signal(signal.SIGINT, lambda signum, _: received.append(signum))  # in uvicorn's place
        install_shutdown_handlers()
        sys.setprofile(interrupt)
        signal.raise_signal(signal.SIGINT)

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        asyncio.run(receive())
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert received == [signal.SIGINT]


def me(muster: Muster, tokens: Tokens) -> int:
    """The status of reading one's account, on a new connection, so that any process may respond."""
    headers = {**tokens.bearer, "Connection": "close"}
    return httpx.get(f"{muster.url}/api/users/me", headers=headers, verify=NO_TLS).status_code


def answers(muster: Muster, tokens: Tokens) -> int | None:
    """One response, retried: until the killed process is replaced, its share of the connections is refused."""
    try:
        return 1 if me(muster, tokens) == 200 else None
    except httpx.TransportError:
        return None


def processes_of(muster: Muster) -> list[psutil.Process]:
    """The supervisor and its workers."""
    assert muster.process is not None
    supervisor = psutil.Process(muster.process.pid)
    return [supervisor, *filter(is_worker, supervisor.children())]


def folder_of(worker: psutil.Process) -> Path:
    return Path(worker.environ()["PROMETHEUS_MULTIPROC_DIR"])


def has_swept(worker: psutil.Process) -> bool:
    """Whether the process has taken a slot, as the sweep does as soon as a process has started. One that still imports
    the application is stopped by uvicorn alone, which reports a second interrupt with a traceback."""
    return any(b"muster_slots_used" in file.read_bytes() for file in folder_of(worker).glob(f"gauge_*_{worker.pid}.db"))


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it died meanwhile, or is a zombie
        return False

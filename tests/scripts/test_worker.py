"""scripts/worker: what it refuses before it connects to anything, and how it ends."""

import os
import signal
from pathlib import Path

import pytest

from app.core.migrations import NOT_MIGRATED
from tests.support.commands import fork
from tests.support.databases import SECRET_KEY
from tests.support.processes import PlainProcess
from tests.support.redis_server import RedisServer
from tests.support.servers import STARTUP, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.one_database]

NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.mark.both_databases
def test_a_database_that_is_not_migrated_is_refused_and_not_created(empty_database_url: str) -> None:
    done = fork("worker", DATABASE_URL=empty_database_url, REDIS_URL=NO_REDIS)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"muster: {NOT_MIGRATED}\n")
    if empty_database_url.startswith("sqlite"):
        assert not Path(empty_database_url.removeprefix("sqlite:///")).exists()


def test_options_that_make_no_sense_are_refused(database_url: str) -> None:
    done = fork("worker", "--concurrency", "0", DATABASE_URL=database_url, REDIS_URL=NO_REDIS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("muster: --concurrency has to be at least 1. Usage: ./scripts/worker ")
    done = fork("worker", "--", "--no-such-option", DATABASE_URL=database_url, REDIS_URL=NO_REDIS)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: celery worker ")


def test_ctrl_c_is_a_clean_end(database_url: str, redis: RedisServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis.url, "SECRET_KEYS": SECRET_KEY}
    process = PlainProcess(["scripts.worker"], {**os.environ, **settings}, log)
    try:
        wait_for(lambda: "The worker is ready." in log.read_text(), what="a worker")
        process.send_signal(signal.SIGINT)
        assert process.wait(STARTUP) == 0
    finally:
        process.kill()
        process.wait(STARTUP)
    assert log.read_text().splitlines()[-1].endswith("The worker has stopped.")

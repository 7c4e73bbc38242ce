"""Muster without ./scripts/serve, under a bare uvicorn: it serves, or says in one line what to type instead."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.core.migrations import NOT_MIGRATED
from tests.support.databases import ROOT, SECRET_KEY
from tests.support.processes import Fork
from tests.support.schema import engine_for
from tests.support.servers import NO_TLS, free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.one_database]

OLDER = "UPDATE alembic_version SET version_num = '3f1c8a52d7e0'"
NEWER = "UPDATE alembic_version SET version_num = 'f00000000001'"


@contextmanager
def uvicorn(url: str, log: Path, application: str = "app.main:app") -> Iterator[tuple[Fork, str]]:
    """The process, and the address where it serves, if it does."""
    port = str(free_port())
    environment = {**os.environ, "DATABASE_URL": url, "ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY, "PORT": port}
    process = Fork(["uvicorn", application, "--port", port], environment, log)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def statuses(address: str) -> tuple[int, int]:
    """The statuses of liveness and readiness, once the service listens."""
    with httpx.Client(base_url=address, verify=NO_TLS, timeout=30) as client:

        def status(path: str) -> int | None:
            try:
                return client.get(path).status_code
            except httpx.TransportError:
                return None

        return wait_for(lambda: status("/health/live"), what="an answer"), status("/health/ready") or 0


def assert_not_migrated(url: str, log: Path, application: str = "app.main:app") -> None:
    with uvicorn(url, log, application) as (process, _):
        assert process.wait(60) == 3
    assert "Traceback" not in log.read_text()
    (line,) = [line for line in log.read_text().splitlines() if "muster:" in line]
    assert line.endswith(f"muster: {NOT_MIGRATED}")
    assert "./scripts/serve" in line
    assert "alembic upgrade head" in line


@pytest.mark.both_databases
def test_an_empty_database_ends_the_start_with_one_line(empty_database_url: str, tmp_path: Path) -> None:
    assert_not_migrated(empty_database_url, tmp_path / "log")


def test_an_older_schema_ends_the_start_and_a_newer_one_is_served(database_url: str, tmp_path: Path) -> None:
    with engine_for(database_url).begin() as connection:
        connection.exec_driver_sql(OLDER)
    assert_not_migrated(database_url, tmp_path / "log", "app.main:api")
    with engine_for(database_url).begin() as connection:
        connection.exec_driver_sql(NEWER)
    with uvicorn(database_url, tmp_path / "log") as (_, address):
        assert statuses(address) == (200, 200)


def test_an_unavailable_database_does_not_end_the_start(tmp_path: Path) -> None:
    with uvicorn("postgresql://nobody@127.0.0.1:1/none", tmp_path / "log") as (_, address):
        assert statuses(address) == (200, 503)


def test_fastapi_dev_says_in_one_line_what_to_type(empty_database_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_database_url, "ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY}
    command = [f"{Path(sys.executable).parent}/fastapi", "dev", "--port", str(free_port())]
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            wait_for(lambda: "startup failed" in log.read_text(), what="the end of the start")
        finally:
            process.terminate()
    assert "Traceback" not in log.read_text()
    (line,) = [line for line in log.read_text().splitlines() if "muster:" in line]
    assert line.endswith(f"muster: {NOT_MIGRATED}")

"""scripts/faults in its short form: a few phones and one fault each. And the count itself finds what is lost."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.fault_injection import testbed
from scripts.fault_injection.__main__ import SCENARIOS, run
from scripts.fault_injection.crowd import Crowd
from tests.support.databases import ROOT
from tests.support.processes import Fork, fork_module
from tests.support.servers import STARTUP, Muster, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.one_database]

COPY = """
INSERT INTO operation (owner_id, type, figi, quantity, date, created_at, updated_at, revision)
SELECT owner_id, type, figi, quantity, date, created_at, updated_at, revision FROM operation WHERE figi = :figi
"""
# The database that each runs on. The others need a server of their own, or another test is their short form.
SHORT = {"kill": "sqlite", "redis": "sqlite", "clock": "sqlite", "soak": "postgresql"}
ELSEWHERE = {
    "kill-worker": "jobs/test_worker_deaths.py",
    "database": "database/test_restarts.py",
    "restore": "scripts/test_copies.py",
    "full-disk": "database/test_errors.py",
}


@pytest.mark.parametrize(("scenario", "database"), SHORT.items())
def test_nothing_acknowledged_is_lost_or_doubled(
    scenario: str, database: str, folder: Path, postgres: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o755)
    short = testbed.Testbed(folder, postgres, clients=2, kills=1, seconds=0.6, minutes=0.05)
    status = run(short, [scenario], [database])
    assert status == 0, capfd.readouterr().out


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("scripts.fault_injection", ("--minutes", "0")),
        ("scripts.fault_injection", ("--kills", "0")),
        ("scripts.fuzzing", ("--minutes", "0")),
        ("scripts.fuzzing", ("--phases", "stateful,foo")),
    ],
)
def test_options_that_would_run_nothing_are_refused(module: str, options: tuple[str, ...]) -> None:
    done = fork_module(module, *options, environment={**os.environ})
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"muster: .*--(minutes|kills|phases).*\. Usage: \./scripts/.*\n", done.stderr)


def test_a_run_that_is_stopped_leaves_neither_files_nor_a_server(tmp_path: Path) -> None:
    # A path as short as the system's: that of a socket is limited in length.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        environment = {**os.environ, "TMPDIR": place}
        environment.pop("TEST_DATABASE_URL", None)
        process = Fork(["scripts.fault_injection", "soak"], environment, tmp_path / "log")
        wait_for(lambda: [*Path(place).glob("muster-faults-*/postgres/postmaster.pid")], what="a server")
        process.terminate()
        assert process.wait(STARTUP) == 1
        assert [path.name for path in Path(place).iterdir() if path.name != "tests-ports"] == []
    assert (tmp_path / "log").read_text() == "muster: stopped\n"


def test_lost_and_doubled_writes_are_counted(serve: Callable[..., Muster], folder: Path) -> None:
    crowd = Crowd(serve(), folder, 1)
    client = crowd.clients[0]
    for _ in range(7):
        client.record()
        assert client.deliver()
    lost, doubled, changed = client.acknowledged
    crowd.muster.sql("DELETE FROM operation WHERE figi = :figi", figi=lost)
    crowd.muster.sql(COPY, figi=doubled)
    crowd.muster.sql("UPDATE operation SET quantity = '7' WHERE figi = :figi", figi=changed)
    outcome = crowd.outcome("a test", "no figures")
    assert (outcome.acknowledged, outcome.lost, outcome.doubled) == (3, 2, 1)
    assert not outcome.is_clean


def test_each_scenario_has_a_short_form() -> None:
    assert SHORT.keys() | ELSEWHERE.keys() == SCENARIOS.keys()
    assert all((ROOT / "tests" / path).exists() for path in ELSEWHERE.values())

"""scripts/faults in its short form: a few phones and one fault each. And the count itself finds what is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.fault_injection import testbed
from scripts.fault_injection.__main__ import SCENARIOS, run
from scripts.fault_injection.crowd import Crowd
from tests.support.databases import ROOT
from tests.support.servers import Muster

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

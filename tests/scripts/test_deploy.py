"""The units of deploy/systemd, as systemd reads them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.databases import ROOT

pytestmark = pytest.mark.one_database

UNITS = sorted((ROOT / "deploy/systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return program


def test_systemd_accepts_the_units_and_rates_them_well_sandboxed(analyze: str, tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/srv/muster", str(ROOT)))
    units = [str(tmp_path / unit.name) for unit in UNITS]
    verified = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    services = [unit for unit in units if unit.endswith(".service")]
    rated = [analyze, "security", "--offline=true", "--threshold=20", *services]  # of 100, the most exposed
    done = subprocess.run(rated, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_unit_can_write_only_to_its_data_folder() -> None:
    assert [unit.stem for unit in SERVICES] == ["muster-backup", "muster-worker", "muster"]
    for unit in SERVICES:
        lines = unit.read_text().splitlines()
        assert {"User=muster", "UMask=0077", "ProtectSystem=strict"} <= set(lines), unit.name
        assert [line for line in lines if line.startswith("ReadWritePaths=")] == ["ReadWritePaths=/srv/muster/data"]


def test_the_guide_names_every_file_and_unit() -> None:
    guide = (ROOT / "docs/deploy.md").read_text()
    assert "cp deploy/systemd/* /etc/systemd/system/" in guide
    enabled = re.search(r"systemctl enable --now (.+)", guide)
    assert enabled
    installed = {unit.name.removesuffix(".service") for unit in UNITS if "[Install]" in unit.read_text()}
    assert set(enabled[1].split()) == installed
    assert {"deploy/caddy/Caddyfile", "deploy/nginx/muster.conf"} <= set(re.findall(r"deploy/\w+/[\w.]+", guide))

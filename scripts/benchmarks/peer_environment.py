"""The environment that the programs in scripts/benchmarks/peers/ run in: data/peers/, made when it is asked for."""

import subprocess
import sys
from pathlib import Path

from app.core.settings import DATA

PEERS = Path(__file__).parent / "peers"
_REQUIREMENTS = PEERS / "requirements.txt"
_FOLDER = DATA / "peers"


def peer_python() -> Path:
    """The interpreter of the environment, which is made if it is missing or its requirements have changed."""
    python, stamp = _FOLDER / "bin" / "python", _FOLDER / "installed.txt"
    if not (stamp.exists() and stamp.read_bytes() == _REQUIREMENTS.read_bytes()):
        print(f"muster: installing what the peers need into {_FOLDER}", file=sys.stderr)
        DATA.mkdir(exist_ok=True)
        _uv("venv", "--clear", "--python", sys.executable, str(_FOLDER))
        _uv("pip", "install", "--compile-bytecode", "--python", str(python), "-r", str(_REQUIREMENTS))
        stamp.write_bytes(_REQUIREMENTS.read_bytes())
    return python


def _uv(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", "--quiet", "--system-certs", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["uv gave no reason"])[-1]
        sys.exit(f"muster: the peers could not be installed (no network?): {reason.strip()}")

"""Exit with 0 if the service at HOST and PORT answers or a worker runs: the health check of the image, without curl."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    if is_worker_running():
        return  # it has no port; metrics show whether its jobs end
    try:
        urlopen(f"http://{address()}/health/live", timeout=2).close()
    except OSError as error:
        sys.exit(f"muster: the service does not answer: {error}")


def is_worker_running() -> bool:
    """Whether a process runs ./scripts/worker of this folder. One that has just ended cannot be read."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve() == ROOT and b"scripts.worker" in (process / "cmdline").read_bytes():
                return True
    return False


def address() -> str:
    host, port = os.environ.get("HOST", "127.0.0.1"), os.environ.get("PORT", "8000")
    if host in {"0.0.0.0", "::"}:  # noqa: S104  # all addresses, so this one too
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()

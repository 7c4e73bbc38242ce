"""The disk of a SQLite database is full, and then it is not."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.fault_injection.crowd import Crowd, Outcome
from scripts.fault_injection.testbed import Testbed
from tests.support.databases import migrate
from tests.support.servers import Muster, wait_for

SIZE = 64 * 1024 * 1024
FULL = 503


def full_disk(testbed: Testbed, kind: str) -> Iterator[Outcome]:
    """The disk of the database is full, on SQLite; needs root, for a small disk of its own"""
    if kind != "sqlite":
        return
    if os.geteuid():
        raise RuntimeError("only root can mount a disk that is small enough to fill")
    with _small_disk(testbed.folder / "disk") as disk:
        url = f"sqlite:///{disk / 'muster.db'}"
        migrate(url)
        with Muster(url, testbed.folder) as muster:
            crowd = Crowd(muster, testbed.folder, testbed.clients)
            with crowd.traffic(testbed.seconds):
                _fill(disk / "ballast")
                wait_for(
                    lambda: any(each.status >= 500 for each in list(crowd.responses)), what="a write without space"
                )
                time.sleep(testbed.seconds)
                ready = muster.client.get("/health/ready").status_code
                (disk / "ballast").unlink()
            outcome = crowd.outcome("disk full, sqlite", f"ready was {ready}", FULL)
            if ready != FULL:
                outcome.troubles.append("the service called itself ready with a full disk")
            yield outcome


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _fill(ballast: Path) -> None:
    """Take the rest of the disk, to the last byte."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass

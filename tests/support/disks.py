"""File systems of a test's own, which may run full or be read-only."""

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


def small_disk(folder: Path) -> AbstractContextManager[Path]:
    """A file system of its own with 4 MiB."""
    return mounted(folder, "-t", "tmpfs", "-o", "size=4m", "none")


@contextmanager
def mounted(folder: Path, *what: str) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", *what, str(folder)], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

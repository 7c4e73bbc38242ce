"""Worker processes to kill, and instances whose jobs wait or fail as a test asks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from tests.support.databases import fresh_database
from tests.support.servers import STARTUP, Muster

SERVICE_WITH_PROBES = "tests.support.apps.service_with_probes:app"


@contextmanager
def service_with_probes(kind: str, folder: Path, postgres: str, **settings: str) -> Iterator[Muster]:
    """An instance whose statement jobs wait or fail as a test asks."""
    with (
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, app=SERVICE_WITH_PROBES, **settings) as served,
    ):
        yield served


class Worker:
    """A real worker process beside a served instance, with its settings."""

    def __init__(self, muster: Muster, *options: str, app: str = "tests.support.apps.worker_with_probes") -> None:
        self.log_file = muster.folder / f"worker-{uuid4().hex[:8]}.log"
        module = ["celery", "--quiet", "--app", app, "worker", "--without-mingle", "--without-gossip", *options]
        self.process = muster.launch(module, {**os.environ, **muster.settings}, self.log_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the worker finish its jobs first. A test that failed may have left it with one that never ends."""
        if self.process.poll() is None:
            if kind is None:
                self.process.terminate()
            else:
                self.process.kill()
            self.process.wait(STARTUP)

    def kill(self) -> None:
        """Send SIGKILL, in the midst of whatever the worker does."""
        self.process.kill()
        self.process.wait(STARTUP)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

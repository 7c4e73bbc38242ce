"""Processes of instances: started by the system, or in less time forked from one that has imported most of it already.

A fork runs the same module with the same arguments, environment and log as `python -m` would, in a process of its own;
tests/support/preload.py says what is in memory already. Tests fork; benchmarks start their instances the plain way.
`fork_module` and `fork_script` do the same for what ends by itself, which takes a second less than starting Python.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import ClassVar, Protocol

from tests.support.databases import ROOT, SECRET_KEY

# What every instance is given, unless a test chooses otherwise.
SETTINGS = {
    "ENVIRONMENT": "test",
    "SECRET_KEYS": SECRET_KEY,
    "LIMIT_LOGIN_IP": "100000/minute",
    "LIMIT_LOGIN_ACCOUNT": "100000/minute",
    "LIMIT_REGISTER": "100000/minute",
    "LIMIT_DEFAULT": "1000000/minute",
    "LIMIT_JOBS": "100000/minute",
    "LIMIT_CHAT": "1000000/minute",
}


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


def fork_module(
    module: str, *arguments: str | Path, environment: dict[str, str], folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a module that ends by itself in this folder: what `subprocess.run` would return of `python -m`."""
    command = [module, *map(str, arguments)]
    with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as errors:
        screens = (Path(output.name), Path(errors.name))
        process = _server().Process(target=_run, args=(command, environment, *screens, folder))
        process.start()
        process.join()
        printed, complained = (screen.read_text() for screen in screens)
    return subprocess.CompletedProcess(command, process.exitcode or 0, printed, complained)


def fork_script(
    script: Path, *arguments: str, environment: dict[str, str], folder: Path = ROOT, answer: str = ""
) -> tuple[int, str]:
    """Run a Python script with `answer` on its standard input: its exit status, and all that it printed."""
    with tempfile.NamedTemporaryFile() as keyboard, tempfile.NamedTemporaryFile() as screen:
        Path(keyboard.name).write_text(answer)
        files = (Path(keyboard.name), Path(screen.name))
        process = _server().Process(target=_run_script, args=([str(script), *arguments], environment, folder, *files))
        process.start()
        process.join()
        return process.exitcode or 0, Path(screen.name).read_text()


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preload"])
    return context


def _run(
    module: list[str], environment: dict[str, str], output: Path, errors: Path | None = None, folder: Path = ROOT
) -> None:
    """Run a module in the new process, as `python -m` would."""
    _become(module, environment, folder, output, errors)
    runpy.run_module(module[0], run_name="__main__", alter_sys=True)


def _run_script(command: list[str], environment: dict[str, str], folder: Path, keyboard: Path, screen: Path) -> None:
    """Run a file in the new process, as `python` would."""
    with keyboard.open("rb") as answer:
        os.dup2(answer.fileno(), 0)
    sys.stdin = os.fdopen(0)
    sys.path.insert(0, str(Path(command[0]).parent))
    _become(command, environment, folder, screen)
    runpy.run_path(command[0], run_name="__main__")


def _become(
    arguments: list[str], environment: dict[str, str], folder: Path, output: Path, errors: Path | None = None
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, screen in ((1, output), (2, errors or output)):
        with screen.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = arguments
    from tests.support.preload import adopt_settings  # noqa: PLC0415  # for forks: importing it takes seconds

    adopt_settings()

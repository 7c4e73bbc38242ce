"""Processes that start in a third of the time: forked from one that has imported the libraries, and nothing of ours.

An instance started so runs the same module with the same arguments, environment and log as `python -m` would, in a
process of its own; only the libraries are in memory already. Benchmarks start theirs the plain way.
"""

import multiprocessing
import os
import runpy
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.servers import ROOT

# What an instance imports before it knows its settings.
LIBRARIES = [
    "alembic.command",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "dogpile.cache",
    "fastapi",
    "jinja2",
    "jose.jws",
    "kombu.transport.redis",
    "limits.storage",
    "passlib.handlers.argon2",
    "psycopg",
    "pydantic_settings",
    "slowapi",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlmodel",
    "uvicorn.protocols.http.auto",
    "zxcvbn",
]


class Fork:
    """A running `python -m module arguments…`, with the part of subprocess.Popen that tests need."""

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
    context.set_forkserver_preload(LIBRARIES)
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

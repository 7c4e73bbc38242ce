"""The command line of the Python scripts: errors in one line, a quiet Ctrl-C, and the project's own interpreter.

Any Python 3 can import this module, so that a script can still explain itself where Python is too old to run the rest.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC)  # no fault of the script's


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses unknown arguments in one line, which says what the script takes.

    What the script writes from then on, such as the database, is readable by its owner alone; `private=False` is for
    scripts that write source code, which others may have to read. What it prints stays in order with its warnings, in a
    file or a pipe as on a terminal.
    """

    def __init__(self, *, private: bool = True, **options: object) -> None:
        if private:
            os.umask(0o077)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]  # those of ArgumentParser

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        self.exit(2, f"muster: {message}. U{usage[1:]}\n")


def use_project_python() -> None:
    """Continue this script in .venv, which is created if there is none, whichever Python was called."""
    if Path(sys.prefix) == ROOT / ".venv":
        return
    if subprocess.run([ROOT / "scripts" / "venv"], check=False).returncode != 0:
        sys.exit(1)  # scripts/venv has said why
    python = str(ROOT / ".venv" / "bin" / "python")
    os.execv(python, [python, *sys.argv])  # noqa: S606  # our own interpreter, our own arguments


def _report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show no traceback for Ctrl-C, for files that cannot be written, or when the program that reads the output has
    ended."""
    if issubclass(kind, KeyboardInterrupt):
        print("\nmuster: stopped", file=sys.stderr)
    elif isinstance(error, OSError) and error.errno in NOT_OURS:
        print(f"muster: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
    elif issubclass(kind, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at its end
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report_uncaught

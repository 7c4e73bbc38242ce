"""How a server process ends: with its supervisor, and at the first Ctrl-C."""

import asyncio
import signal
from multiprocessing import parent_process
from typing import Any


def end_in_order() -> None:
    """Called when the event loop runs, in the main thread, after uvicorn has installed its signal handlers."""
    _end_with_supervisor()
    _end_at_first_interrupt()


def _end_with_supervisor() -> None:
    """Without the process that supervises WORKERS or --reload, nobody would end this one, and the port stayed taken."""
    if (supervisor := parent_process()) is None:
        return
    loop, sentinel = asyncio.get_running_loop(), supervisor.sentinel

    def end() -> None:
        loop.remove_reader(sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(sentinel, end)


def _end_at_first_interrupt() -> None:
    """At a second Ctrl-C uvicorn would not close the services, and log that it did not. It waits for 10 s at most."""
    uvicorns: Any = signal.getsignal(signal.SIGINT)

    def interrupt(*arguments: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        uvicorns(*arguments)

    signal.signal(signal.SIGINT, interrupt)

"""How a server process ends: with its supervisor, and at the first Ctrl-C."""

import asyncio
import signal
from multiprocessing import parent_process
from typing import Any


def end_in_order() -> None:
    """Called when the event loop runs, in the main thread, after uvicorn has installed its signal handlers."""
    loop, supervisor = asyncio.get_running_loop(), parent_process()
    uvicorns: Any = signal.getsignal(signal.SIGINT)

    def interrupt(*arguments: Any) -> None:
        # At a second Ctrl-C uvicorn would not close the services, and log that it did not. It waits for 10 s at most.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        uvicorns(*arguments)

    def end(sentinel: int) -> None:
        loop.remove_reader(sentinel)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, interrupt)
    if supervisor:  # of WORKERS or --reload. Without it nobody would end this process, and the port stayed taken
        loop.add_reader(supervisor.sentinel, end, supervisor.sentinel)

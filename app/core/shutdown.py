"""Shutting down a server process: at the first Ctrl-C or SIGTERM, and when its supervisor dies."""

import asyncio
import signal
from multiprocessing import parent_process
from typing import Any


def install_shutdown_handlers() -> None:
    """Shut down once, at the first Ctrl-C or SIGTERM, or with the supervisor. Call this after uvicorn has installed its
    handlers, in the main thread while the event loop runs."""
    loop, supervisor = asyncio.get_running_loop(), parent_process()
    uvicorn_handler: Any = signal.getsignal(signal.SIGINT)
    has_begun = False

    def shut_down(*arguments: Any) -> None:
        # At a Ctrl-C after the first signal uvicorn would exit without closing the services, which takes at most 10 s.
        nonlocal has_begun
        if not has_begun:
            has_begun = True  # at once: the next signal may interrupt even this function
            uvicorn_handler(*arguments)

    def end(sentinel: int) -> None:
        loop.remove_reader(sentinel)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, shut_down)
    signal.signal(signal.SIGTERM, shut_down)
    if supervisor:  # of WORKERS or --reload: if it dies, nothing else stops this process, which keeps the port
        loop.add_reader(supervisor.sentinel, end, supervisor.sentinel)

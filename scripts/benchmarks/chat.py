"""Many sockets in one room: does each message reach each of them once, how soon, and how much memory do they take?"""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from statistics import median, quantiles
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from scripts.benchmarks.testbed import Testbed, server_process, start_sessions
from tests.support.redis_server import RedisServer
from tests.support.servers import Muster

MESSAGES = 20
PAUSE = 0.25  # seconds from one message to the next
PATIENCE = 60  # seconds for anything
MIB = 1024 * 1024


def chat(testbed: Testbed) -> None:
    """500 sockets and 20 messages, on one process and on two with Redis: delivery, delay and memory"""
    for kind in testbed.databases:
        for processes in (1, 2):
            with testbed.database(kind) as url, ExitStack() as stack:
                settings = {"LIMIT_CHAT": "100000/minute"}
                if processes > 1:
                    settings["REDIS_URL"] = stack.enter_context(RedisServer(testbed.folder)).url
                served = [stack.enter_context(testbed.muster(url, **settings)) for _ in range(processes)]
                # A person has fifty places in a process.
                tokens = [pair.access_token for pair in start_sessions(url, people=10, each=50)]
                asyncio.run(_warm_up(served, tokens[0]))
                before = _memory(served)
                delays, after = asyncio.run(_broadcast(served, tokens))
                cuts = quantiles(delays, n=100)
                grown = [f"{(now - then) / MIB:.0f} MiB" for then, now in zip(before, after, strict=True)]
                print(f"chat on {kind}, {processes} process(es): {len(tokens)} sockets, {MESSAGES} messages")
                print("  delivered      each message to each socket once, in order")
                print(
                    f"  after          median {median(delays):.0f} ms, p99 {cuts[98]:.0f} ms, last {max(delays):.0f} ms"
                )
                print(f"  memory         {' and '.join(grown)} more for the sockets")


def _memory(served: Sequence[Muster]) -> list[int]:
    return [server_process(each).memory_info().rss for each in served]


async def _warm_up(served: Sequence[Muster], token: str) -> None:
    for each in served:
        async with _socket(each, token) as socket:
            await socket.recv()
            await socket.send(json.dumps({"text": "warm"}))
            await socket.recv()


def _socket(served: Muster, token: str) -> Any:
    url = f"ws://127.0.0.1:{served.port}/api/chat/ws?room=bench"
    headers = {"Authorization": f"Bearer {token}"}
    return connect(url, additional_headers=headers, compression=None, ping_interval=None, open_timeout=PATIENCE)


async def _broadcast(served: Sequence[Muster], tokens: Sequence[str]) -> tuple[list[float], list[int]]:
    """The milliseconds from sending each message to each arrival, and the memory of the servers at the end."""
    delays: list[float] = []

    async def receive(socket: ClientConnection) -> list[int]:
        numbers = []
        for _ in range(MESSAGES):
            message = json.loads(await socket.recv())
            delays.append((time.perf_counter() - float(message["text"])) * 1000)
            numbers.append(message["number"])
        return numbers

    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        sockets: list[ClientConnection] = []
        for index, token in enumerate(tokens):
            sockets.append(await stack.enter_async_context(_socket(served[index % len(served)], token)))
            await sockets[-1].recv()  # "ready"
        receivers = [asyncio.create_task(receive(socket)) for socket in sockets]
        for sender in sockets[:MESSAGES]:
            await sender.send(json.dumps({"text": str(time.perf_counter())}))
            await asyncio.sleep(PAUSE)
        seen = await asyncio.gather(*receivers)
        first = seen[0]
        if any(numbers != first for numbers in seen) or first != list(range(first[0], first[0] + MESSAGES)):
            raise AssertionError("a message was lost, duplicated or out of order")
        return delays, _memory(served)

"""Between processes: what one tells, all others hear, over Redis pub/sub. What it loses, the database still has."""

from asyncio import Queue
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio

from app.core import metrics

CHANNEL = "muster/chat"
TIMEOUT = 1  # seconds for each command
WAITING = 1000  # what is to be told while Redis is slow; more is left to the database


class Relay:
    def __init__(self, redis_url: str, heard: Callable[[str], None], listening: Callable[[], None]) -> None:
        """`heard` is called with each text, `listening` whenever what was told before may have been missed."""
        from redis.asyncio import Redis  # noqa: PLC0415  # a tenth of a second that others need not wait
        from redis.asyncio.retry import Retry  # noqa: PLC0415  # the same
        from redis.backoff import NoBackoff  # noqa: PLC0415  # the same
        from redis.exceptions import RedisError  # noqa: PLC0415  # the same

        self._away = (RedisError, OSError)
        self._heard, self._listening = heard, listening
        self._redis: Any = Redis.from_url(
            redis_url,
            decode_responses=True,
            socket_connect_timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        self._texts: Queue[str] = Queue(WAITING)

    def tell(self, text: str) -> None:
        """Returns at once and never fails."""
        if self._texts.full():
            metrics.count("relay_failures")
        else:
            self._texts.put_nowait(text)

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tell_on)
                tasks.start_soon(self._listen_on)
        finally:
            with anyio.CancelScope(shield=True), suppress(*self._away):
                await self._redis.aclose()

    async def _tell_on(self) -> None:
        while True:
            text = await self._texts.get()
            try:
                await self._redis.publish(CHANNEL, text)
            except self._away:
                metrics.count("relay_failures")

    async def _listen_on(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception:  # Redis is away, or tells nonsense
                metrics.count("relay_failures")
            await anyio.sleep(TIMEOUT)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as channel:
            await channel.subscribe(CHANNEL)
            async for event in channel.listen():
                if event["type"] == "subscribe":
                    self._listening()
                elif event["type"] == "message":
                    self._heard(event["data"])

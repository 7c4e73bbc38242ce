"""Redis pub/sub, which passes messages between processes. Lost messages are read from the database."""

from asyncio import Queue
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio

from app.core import metrics

CHANNEL = "muster/chat"
TIMEOUT = 1  # seconds for each command


class PubSub:
    def __init__(self, redis_url: str, on_message: Callable[[str], None], on_subscribed: Callable[[], None]) -> None:
        """`on_subscribed` is called after each (re)connection: what was published before it may have been missed."""
        from redis.asyncio import Redis  # noqa: PLC0415  # importing it takes 0.1 s, which only Redis users need

        self._on_message, self._on_subscribed = on_message, on_subscribed
        # Without retries: a lost message is found in the database, and _stay_subscribed connects again.
        self._redis: Any = Redis.from_url(
            redis_url, decode_responses=True, socket_connect_timeout=TIMEOUT, socket_timeout=TIMEOUT, retry=None
        )
        self._pending: Queue[str] = Queue(1000)  # while Redis is slow; further ones are found in the database

    def publish(self, text: str) -> None:
        """Queue a message for publishing. Returns at once and never fails."""
        if self._pending.full():
            metrics.count("pubsub_failures")
        else:
            self._pending.put_nowait(text)

    async def run(self) -> None:
        """Publish and receive until canceled."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._publish_pending)
                tasks.start_soon(self._stay_subscribed)
        finally:
            with anyio.CancelScope(shield=True), suppress(Exception):
                await self._redis.aclose()

    async def _publish_pending(self) -> None:
        while True:
            text = await self._pending.get()
            try:
                await self._redis.publish(CHANNEL, text)
            except Exception:  # Redis is unavailable: the other processes find the message in the database
                metrics.count("pubsub_failures")

    async def _stay_subscribed(self) -> None:
        while True:
            try:
                await self._subscribe()
            except Exception:  # Redis is unavailable, or its response is malformed
                metrics.count("pubsub_failures")
            await anyio.sleep(TIMEOUT)

    async def _subscribe(self) -> None:
        async with self._redis.pubsub() as channel:
            await channel.subscribe(CHANNEL)
            async for event in channel.listen():
                if event["type"] == "subscribe":
                    self._on_subscribed()
                elif event["type"] == "message":
                    self._on_message(event["data"])
                    await anyio.sleep(0)  # many may have arrived at once: subscribers take each before the next

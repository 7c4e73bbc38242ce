"""The subscribers of chat rooms in this process, and the messages that wait for each of them."""

import asyncio
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

import anyio

from app.chat.messages import Message

MAX_BACKLOG = 100  # messages that wait for one subscriber


class CloseReason(IntEnum):
    """Why a subscriber was closed, as the close code of a WebSocket (RFC 6455 section 7.4)."""

    STOPPING = 1012
    SLOW = 1013
    SIGNED_OUT = 4401
    FORBIDDEN = 4403


@dataclass(eq=False)
class Subscriber:
    """A connection that receives a room's messages. It is served within `scope`, which closing it cancels."""

    parties: tuple[str, ...]  # whose subscribers are limited together: the person, their network, everybody
    session_id: UUID
    room: str
    last: int = 0  # the number of the latest message that was taken
    start: int = 0  # the room's last number at the time of subscribing
    close_reason: CloseReason | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _backlog: list[Message] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)  # there are messages to take, or it is closed

    def deliver(self, message: Message) -> None:
        if len(self._backlog) == MAX_BACKLOG:
            self.close(CloseReason.SLOW)
        else:
            self._backlog.append(message)
            self.ready.set()

    def close(self, reason: CloseReason) -> None:
        if self.close_reason is None:
            self.close_reason = reason
            self.ready.set()
            self.scope.cancel()

    def take(self) -> list[Message]:
        """Empty the backlog, leaving out messages that were taken before."""
        taken = [message for message in self._backlog if message.number > self.last]
        self._backlog.clear()
        self.ready.clear()
        self.last = taken[-1].number if taken else self.last
        return taken


@dataclass(eq=False)
class Room:
    """A room with subscribers in this process. Messages up to `last` were delivered; `newest` is known to exist."""

    name: str
    last: int | None = None
    newest: int = 0
    is_catching_up: bool = False
    subscribers: set[Subscriber] = field(default_factory=set)

    def deliver(self, message: Message) -> None:
        if self.last is not None and message.number > self.last:
            self.last = message.number
            for subscriber in self.subscribers:
                subscriber.deliver(message)

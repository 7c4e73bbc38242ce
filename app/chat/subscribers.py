"""Who follows a room of the chat on this process, and what waits for each of them."""

import asyncio
from dataclasses import dataclass, field
from enum import IntEnum
from uuid import UUID

import anyio

from app.chat.messages import Message

QUEUE = 100  # messages that wait for one reader


class Ending(IntEnum):
    """Why a reader was ended, as the close code of a socket (RFC 6455 section 7.4)."""

    STOPPING = 1012
    SLOW = 1013
    SIGNED_OUT = 4401
    FORBIDDEN = 4403


@dataclass(eq=False)
class Reader:
    """One who follows a room. Whoever serves it does so within `scope`, which is cancelled when the reader is ended."""

    user_id: UUID
    session_id: UUID
    room: str
    last: int = 0  # the number of the message handed out last
    start: int = 0  # the room's last number when it joined
    ending: Ending | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _waiting: list[Message] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, message: Message) -> None:
        if len(self._waiting) == QUEUE:
            self.end(Ending.SLOW)
        else:
            self._waiting.append(message)
            self._more.set()

    def end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self._more.set()
            self.scope.cancel()

    async def wait(self) -> None:
        """Until there is something to take, or it is ended."""
        await self._more.wait()

    def take(self) -> list[Message]:
        """What waits, without what was handed out already."""
        taken = [message for message in self._waiting if message.number > self.last]
        self._waiting.clear()
        self._more.clear()
        self.last = taken[-1].number if taken else self.last
        return taken


@dataclass(eq=False)
class Room:
    """A room that somebody follows here: all up to `last` was passed on, and there is something up to `newest`."""

    name: str
    last: int | None = None
    newest: int = 0
    is_catching_up: bool = False
    readers: set[Reader] = field(default_factory=set)

    def pass_on(self, message: Message) -> None:
        if self.last is not None and message.number > self.last:
            self.last = message.number
            for reader in self.readers:
                reader.put(message)

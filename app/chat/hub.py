"""The chat hub: how a stored message reaches all who follow its room (app/chat/subscribers.py) on this process.

A room is one sequence (app/chat/messages.py). The hub passes on what continues it, in order; where a number is missing
it reads the database, once for all readers. What other processes wrote comes over Redis, or at the latest by a look at
the rooms' counters. Each reader has a bounded queue: one who does not keep up is ended, and resumes. Everything here
runs on the loop, but for `post`.
"""

import asyncio
import json
import logging
import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import anyio
from anyio.abc import TaskGroup
from sqlmodel import Session

from app.chat.messages import Message, last_numbers, read_messages, store
from app.chat.pubsub import Relay
from app.chat.subscribers import Ending, Reader, Room
from app.core import metrics
from app.core.database import Database, after_commit
from app.core.errors import TooManyRequests, Unavailable
from app.models.base import utcnow
from app.models.chat import ChatMessageCreate, ChatMessagePublic

log = logging.getLogger("muster.chat")

SCOPE = "chat"
BATCH = 200  # messages, rooms or sessions that one statement reads
LOOK = 1.0  # seconds from one look at the rooms' counters to the next
CHECK = 15.0  # seconds from one look at the readers' sessions to the next
MOST_OF_ONE, MOST = 1_000, 5_000  # readers of one person, and of all, on a process

T = TypeVar("T")

LiveScopes = Callable[[Session, Collection[UUID], datetime], dict[UUID, frozenset[str]]]


class ChatHub:
    def __init__(self, database: Database, redis_url: str | None, live_scopes: LiveScopes) -> None:
        self._database = database
        self._live_scopes = live_scopes
        self._rooms: dict[str, Room] = {}
        self._people: Counter[UUID] = Counter()
        self._is_stopping = False
        self._failing: set[str] = set()  # what was not possible when it was last tried
        self._look_now = asyncio.Event()
        self._relay = Relay(redis_url, self._heard, self._look_now.set) if redis_url else None
        self._loop = asyncio.get_running_loop()
        self._tasks: TaskGroup

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._look_on)
            self._tasks.start_soon(self._check_on)
            if self._relay is not None:
                self._tasks.start_soon(self._relay.run)
            yield
            self._tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """The service ends: so does everybody who follows a room."""
        self._is_stopping = True
        for reader in self._readers():
            reader.end(Ending.STOPPING)

    # ---- Written ----

    def post(
        self, session: Session, author_id: UUID, author: str | None, body: ChatMessageCreate
    ) -> tuple[ChatMessagePublic, bool]:
        """Store a message, and tell everybody once it is committed; it, and whether it is new. Called in a thread."""
        public, is_new = store(session, author_id, author, body, utcnow())
        if is_new:
            metrics.count("messages")
            message = Message.of(public)
            after_commit(session, partial(self._loop.call_soon_threadsafe, self._written, message))
        return public, is_new

    def _written(self, message: Message) -> None:
        self._pass_on(message)
        if self._relay is not None:
            self._relay.tell(message.json)

    # ---- Read ----

    async def read(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int = BATCH
    ) -> list[Message]:
        """What is stored, see read_messages; in a short session of its own."""
        return await self._in_session(partial(read_messages, room=room, after=after, before=before, limit=limit))

    @asynccontextmanager
    async def join(
        self, room: str, *, user_id: UUID, session_id: UUID, expires_at: float, after: int | None
    ) -> AsyncIterator[Reader]:
        """A reader of all that comes after the number `after`; None: after what is there now."""
        self.admit(user_id)
        reader = Reader(user_id, session_id, room)
        joined = self._rooms.setdefault(room, Room(room))
        joined.readers.add(reader)
        self._people[user_id] += 1
        metrics.readers.inc()
        expiry = self._loop.call_later(expires_at - utcnow().timestamp(), reader.end, Ending.SIGNED_OUT)
        try:
            if joined.last is None:
                await self._begin(joined)
            reader.start = joined.last or 0
            reader.last = reader.start if after is None else after
            yield reader
        finally:
            metrics.readers.dec()
            metrics.count("readers_ended", ending=reader.ending.name.lower() if reader.ending else "left")
            expiry.cancel()
            joined.readers.discard(reader)
            if not joined.readers:
                self._rooms.pop(room, None)
            self._people[user_id] -= 1
            if not self._people[user_id]:
                del self._people[user_id]

    def admit(self, user_id: UUID) -> None:
        """Raise TooManyRequests or Unavailable if there is no room for another reader."""
        if self._is_stopping:
            raise Unavailable("The service is about to stop. Try again shortly.")
        if self._people[user_id] >= MOST_OF_ONE:
            raise TooManyRequests("You follow too many rooms at once.", headers={"Retry-After": "60"})
        if self._people.total() >= MOST:
            raise Unavailable("Too many follow the chat here. Try again shortly.", retry_after=10)

    async def _begin(self, room: Room) -> None:
        """Find out where a room is. What is told of it meanwhile is noted, and caught up with."""
        found = (await self._in_session(partial(last_numbers, rooms=[room.name]))).get(room.name, 0)
        if room.last is None:
            room.last = found
            self._note(room, found)

    async def follow(self, reader: Reader, *, every: float = math.inf) -> AsyncGenerator[list[Message]]:
        """What was stored before it joined, then what comes, in order and each once, until the reader is ended.

        Nothing, in a list, whenever nothing comes for `every` seconds.
        """
        while reader.last < reader.start:
            stored = await self.read(reader.room, after=reader.last, before=reader.start + 1)
            reader.last = stored[-1].number if len(stored) == BATCH else reader.start
            yield stored
        while reader.ending is None:
            with anyio.move_on_after(every):
                await reader.wait()
            yield reader.take()

    # ---- Passed on ----

    def _heard(self, text: str) -> None:
        """Of another process; what came from this one comes back too, and is known."""
        try:
            told = json.loads(text)
            message = Message(str(told["room"]), int(told["number"]), text)
        except (ValueError, TypeError, KeyError):  # not ours
            metrics.count("relay_failures")
        else:
            self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        room = self._rooms.get(message.room)
        if room is None:
            return
        if room.last is not None and message.number == room.last + 1:
            room.pass_on(message)
        self._note(room, message.number)

    def _note(self, room: Room, number: int) -> None:
        """There is a message with this number: read it, unless it was passed on."""
        room.newest = max(room.newest, number)
        if room.last is not None and room.newest > room.last and not room.is_catching_up:
            room.is_catching_up = True
            self._tasks.start_soon(self._catch_up, room)

    async def _catch_up(self, room: Room) -> None:
        metrics.count("chat_gaps")
        try:
            while room.last is not None and room.last < room.newest:
                newest = room.newest
                stored = await self.read(room.name, after=room.last)
                for message in stored:
                    room.pass_on(message)
                if len(stored) < BATCH:
                    room.last = max(room.last, newest)  # a number that is missing now was never used, or is deleted
        except Exception as error:  # the database is away: the next look finds the same
            self._note_failure("catch up", error)
        else:
            self._failing.discard("catch up")
        finally:
            room.is_catching_up = False

    # ---- Looked after ----

    async def _look_on(self) -> None:
        """At the counters of all rooms that somebody follows: whatever was not told is found here."""
        while True:
            with anyio.move_on_after(LOOK):
                await self._look_now.wait()
            self._look_now.clear()
            await self._in_batches("look", self._rooms, self._look)

    async def _look(self, names: list[Any]) -> None:
        for name, number in (await self._in_session(partial(last_numbers, rooms=names))).items():
            if name in self._rooms:
                self._note(self._rooms[name], number)

    async def _check_on(self) -> None:
        """At the sessions of all readers."""
        while True:
            await anyio.sleep(CHECK)
            by_session: defaultdict[UUID, list[Reader]] = defaultdict(list)
            for reader in self._readers():
                by_session[reader.session_id].append(reader)
            await self._in_batches("check", by_session, partial(self._check, by_session))

    async def _check(self, by_session: dict[UUID, list[Reader]], ids: list[Any]) -> None:
        live = await self._in_session(lambda session: self._live_scopes(session, ids, utcnow()))
        for session_id in ids:
            if SCOPE not in live.get(session_id, ()):
                ending = Ending.FORBIDDEN if session_id in live else Ending.SIGNED_OUT
                for reader in by_session[session_id]:
                    reader.end(ending)

    async def _in_batches(self, what: str, keys: Collection[Any], work: Callable[[list[Any]], Any]) -> None:
        every = list(keys)
        try:
            for first in range(0, len(every), BATCH):
                await work(every[first : first + BATCH])
        except Exception as error:
            self._note_failure(what, error)
        else:
            self._failing.discard(what)

    def _note_failure(self, what: str, error: Exception) -> None:
        """Counted each time; logged once, until the same goes on."""
        metrics.count("chat_failures")
        if what not in self._failing:
            log.warning("the chat goes on later: %s", type(error).__name__)  # a database error repeats what a row holds
        self._failing.add(what)

    def _readers(self) -> list[Reader]:
        return [reader for room in self._rooms.values() for reader in room.readers]

    async def _in_session(self, work: Callable[[Session], T]) -> T:
        return await self._database.run(self._database.chat_read_side, None, work)

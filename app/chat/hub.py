"""The chat hub, which delivers each stored message to every subscriber of its room in this process.

A room numbers its messages (app/chat/messages.py). The hub delivers the message with the next number at once, and reads
missing ones from the database, once for all subscribers. Messages of other processes arrive over Redis or, if it loses
one, with the next poll of the rooms' counters. A subscriber whose backlog is full is closed, and resumes.
Everything here runs on the event loop, except `post`.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
from anyio.abc import TaskGroup
from sqlmodel import Session

from app.chat.messages import Message, last_numbers, read_messages, store
from app.chat.pubsub import PubSub
from app.chat.subscribers import MAX_BACKLOG, CloseReason, Room, Subscriber
from app.core import metrics
from app.core.database import Database, after_commit
from app.core.errors import TooManyRequests, Unavailable
from app.models.base import utcnow
from app.models.chat import ChatMessageCreate, ChatMessagePublic
from app.oauth2.refresh_tokens import live_scopes
from app.oauth2.resource_server import Caller

log = logging.getLogger("muster.chat")

CHAT_SCOPE = "chat"
BATCH = 200  # messages that one statement reads
# Messages per read while catching up: half a backlog, so that a subscriber that keeps up is never closed as too slow.
CATCH_UP_BATCH = MAX_BACKLOG // 2
POLL_INTERVAL = 1.0  # seconds between polls of the rooms' counters
SESSION_CHECK_INTERVAL = 15.0  # seconds between checks of the subscribers' sessions
MAX_PER_USER, MAX_PER_NETWORK, MAX_SUBSCRIBERS = 50, 1_000, 5_000  # in a process
_EVERYBODY = ""


class ChatHub:
    def __init__(self, database: Database, redis_url: str | None) -> None:
        self._read = database.chat_read
        self._rooms: dict[str, Room] = {}
        self._counts: Counter[str] = Counter()  # subscribers of each person, of each network, and of everybody
        self._is_stopping = False
        self._failing: set[str] = set()  # the tasks whose latest run failed
        self._poll_now = asyncio.Event()
        self._pubsub = PubSub(redis_url, self._received, self._poll_now.set) if redis_url else None
        self._loop = asyncio.get_running_loop()
        self._tasks: TaskGroup

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._poll_rooms)
            self._tasks.start_soon(self._check_sessions)
            if self._pubsub is not None:
                self._tasks.start_soon(self._pubsub.run)
            yield
            self._tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Close every subscriber, because the service is stopping."""
        self._is_stopping = True
        for subscriber in self._subscribers():
            subscriber.close(CloseReason.STOPPING)

    def _subscribers(self) -> list[Subscriber]:
        return [subscriber for room in self._rooms.values() for subscriber in room.subscribers]

    # ---- Writing ----

    def post(self, session: Session, me: Caller, body: ChatMessageCreate) -> tuple[ChatMessagePublic, bool]:
        """Store a message, and publish it after the commit. Returns it and whether it is new. Called in a thread."""
        public, is_new = store(session, me, body, utcnow())
        if is_new:
            metrics.count("chat_messages")
            after_commit(session, partial(self._loop.call_soon_threadsafe, self._publish, Message.of(public)))
        return public, is_new

    def _publish(self, message: Message) -> None:
        self._deliver(message)
        if self._pubsub is not None:
            self._pubsub.publish(message.json)

    # ---- Reading ----

    @asynccontextmanager
    async def subscribe(self, me: Caller, network: str, *, room: str, after: int | None) -> AsyncIterator[Subscriber]:
        """A subscriber to the messages after the number `after`, or without it to new messages only, for as long as the
        access token is valid."""
        self.admit(me, network)
        subscriber = Subscriber((str(me.user_id), network, _EVERYBODY), me.session_id, room)
        joined = self._rooms.setdefault(room, Room(room))
        joined.subscribers.add(subscriber)
        self._counts.update(subscriber.parties)
        metrics.subscribers.inc()
        seconds = me.claims.expires_at - utcnow().timestamp()
        expiry = self._loop.call_later(seconds, subscriber.close, CloseReason.SIGNED_OUT)
        try:
            if joined.last is None:
                await self._start(joined)
            subscriber.start = joined.last or 0
            subscriber.last = subscriber.start if after is None else after
            yield subscriber
        finally:
            expiry.cancel()
            self._remove(subscriber, joined)

    def admit(self, me: Caller, network: str) -> None:
        """Raise TooManyRequests or Unavailable if the hub cannot take another subscriber."""
        if self._is_stopping:
            raise Unavailable("The service is about to stop. Try again shortly.")
        if self._counts[str(me.user_id)] >= MAX_PER_USER or self._counts[network] >= MAX_PER_NETWORK:
            raise TooManyRequests("You or your network have too many chat connections.", headers={"Retry-After": "60"})
        if self._counts[_EVERYBODY] >= MAX_SUBSCRIBERS:
            raise Unavailable("The chat has too many connections. Try again shortly.", retry_after=10)

    async def _start(self, room: Room) -> None:
        """Read the room's last number. Messages that arrive meanwhile are noted, and caught up with."""
        last = await self._read(None, last_numbers, [room.name])
        if room.last is None:
            room.last = last.get(room.name, 0)
            self._note(room, room.last)

    def _remove(self, subscriber: Subscriber, room: Room) -> None:
        reason = subscriber.close_reason
        metrics.subscribers.dec()
        metrics.count("chat_subscribers_ended", ending=reason.name.lower() if reason else "left")
        room.subscribers.discard(subscriber)
        if not room.subscribers:
            self._rooms.pop(room.name, None)
        for party in subscriber.parties:
            self._counts[party] -= 1
            if not self._counts[party]:
                del self._counts[party]

    async def next_messages(self, subscriber: Subscriber, *, idle: float | None = None) -> list[Message]:
        """Messages in order: stored ones first, then new ones; after `idle` seconds of silence an empty list."""
        if subscriber.last < subscriber.start:
            room, after, before = subscriber.room, subscriber.last, subscriber.start + 1
            stored = await self._read(None, read_messages, room, after=after, before=before, limit=BATCH)
            subscriber.last = stored[-1].number if len(stored) == BATCH else subscriber.start
            return stored
        with anyio.move_on_after(idle):
            await subscriber.ready.wait()
        return subscriber.take()

    # ---- Delivery ----

    def _received(self, text: str) -> None:
        """Deliver a message of another process. This process's own come back too, and are known."""
        try:
            fields = json.loads(text)
            message = Message(str(fields["room"]), int(fields["number"]), text)
        except (ValueError, TypeError, KeyError):  # not one of ours: raising would interrupt the subscription
            metrics.count("pubsub_failures")
        else:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        if room := self._rooms.get(message.room):
            if room.last is not None and message.number == room.last + 1:
                room.deliver(message)
            self._note(room, message.number)

    def _note(self, room: Room, number: int) -> None:
        """Note that a message with this number exists, and read what is missing up to it."""
        room.newest = max(room.newest, number)
        if room.last is not None and room.newest > room.last and not room.is_catching_up:
            room.is_catching_up = True
            self._tasks.start_soon(self._catch_up, room)

    async def _catch_up(self, room: Room) -> None:
        metrics.count("chat_gaps")
        with self._outlasting_outages("catch up"):
            while room.last is not None and room.last < room.newest:
                newest = room.newest
                stored = await self._read(None, read_messages, room.name, after=room.last, limit=CATCH_UP_BATCH)
                for message in stored:
                    room.deliver(message)
                if len(stored) < CATCH_UP_BATCH:
                    room.last = max(room.last, newest)  # a number still missing was never used, or was deleted
        room.is_catching_up = False

    # ---- Polling ----

    async def _poll_rooms(self) -> None:
        """Compare the counters of all rooms with subscribers, to find messages that pub/sub did not deliver."""
        while True:
            with anyio.move_on_after(POLL_INTERVAL):
                await self._poll_now.wait()
            self._poll_now.clear()
            with self._outlasting_outages("poll"):
                rooms = dict(self._rooms)
                numbers = await self._read(None, last_numbers, [*rooms]) if rooms else {}
                for name, number in numbers.items():
                    self._note(rooms[name], number)

    async def _check_sessions(self) -> None:
        """Close the subscribers whose session has ended or lost the scope."""
        while True:
            await anyio.sleep(SESSION_CHECK_INTERVAL)
            subscribers = self._subscribers()
            with self._outlasting_outages("check"):
                ids = {subscriber.session_id for subscriber in subscribers}
                live = await self._read(None, live_scopes, ids, utcnow()) if ids else {}
                for subscriber in subscribers:
                    if CHAT_SCOPE not in live.get(subscriber.session_id, ()):
                        is_live = subscriber.session_id in live
                        subscriber.close(CloseReason.FORBIDDEN if is_live else CloseReason.SIGNED_OUT)

    @contextmanager
    def _outlasting_outages(self, task: str) -> Iterator[None]:
        """Count each failure of a task that will run again. Of failures in a row only the first is logged."""
        try:
            yield
        except Exception as error:
            metrics.count("chat_failures")
            if task not in self._failing:
                # Only the class is logged, since the message of a database error repeats the row's values.
                log.warning("the chat could not %s and will retry: %s", task, type(error).__name__)
            self._failing.add(task)
        else:
            self._failing.discard(task)

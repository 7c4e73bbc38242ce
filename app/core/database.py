"""The database: its two sides, the slots in front of them, and the one session dependency.

Safe methods read through an engine that the database keeps read-only and in AUTOCOMMIT; all others write through one
that commits before the response leaves. At most DB_SLOTS requests hold a session; SQLite has one slot for writing.
"""

from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Annotated, Any, TypeVar

import anyio
from anyio import CancelScope, to_thread
from anyio.from_thread import BlockingPortal
from fastapi import Depends, Request
from sqlalchemy import Engine, event
from sqlmodel import Session

from app.core import metrics
from app.core.dialects import make_engine
from app.core.errors import Unavailable
from app.core.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CHAT_SLOTS = 4  # sessions of sockets, streams and long polls at once: they take none from the requests
SOCKET_CONNECTIONS = 2 * CHAT_SLOTS  # of each process on PostgreSQL, beside two for every slot

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run `work` in a worker thread and never part from it.

    Anyio's own cancellation waits for the thread anyway. A native one (a server that shuts down) does not, and what
    cleans up behind it would then share the session with a thread that still uses it.
    """
    begun, running = Lock(), Lock()  # whoever takes `begun` decides whether the work takes place

    def run() -> T:
        if not begun.acquire(blocking=False):
            raise CancelledError
        try:
            return work(*arguments)
        finally:
            running.release()

    running.acquire()  # the thread releases it
    try:
        return await to_thread.run_sync(run)
    except CancelledError:
        if not begun.acquire(blocking=False):
            with CancelScope(shield=True):
                await to_thread.run_sync(running.acquire)
        raise


class ClientGone(Exception):
    """The client left while its request waited for a slot: there is nobody to answer."""


@dataclass(frozen=True)
class Side:
    """An engine and the slots in front of it."""

    engine: Engine
    slots: anyio.Semaphore
    commits: bool

    @cached_property
    def used(self) -> Any:
        """The gauge of its sessions."""
        return metrics.slots("write" if self.commits else "read")


class Database:
    """Both sides. On PostgreSQL they share their slots; on SQLite the writer has one and the readers the rest."""

    def __init__(self, settings: Settings, portal: BlockingPortal) -> None:
        self._portal = portal
        self._timeout = settings.slot_timeout.total_seconds()
        slots = anyio.Semaphore(settings.db_slots, fast_acquire=True)
        writers = anyio.Semaphore(1, fast_acquire=True) if settings.on_sqlite else slots
        self.on_sqlite = settings.on_sqlite
        self.read = Side(make_engine(settings, read_only=True), slots, commits=False)
        self.write = Side(make_engine(settings), writers, commits=True)
        self.replica: Side | None = None
        if settings.read_database_url:
            there = settings.model_copy(update={"database_url": settings.read_database_url})
            self.replica = Side(make_engine(there, read_only=True), slots, commits=False)
        few = settings.model_copy(update={"db_slots": CHAT_SLOTS})
        chatters = anyio.Semaphore(CHAT_SLOTS, fast_acquire=True)
        self.chat_read = Side(make_engine(few, read_only=True), chatters, commits=False)
        self.chat_write = self.write if settings.on_sqlite else Side(make_engine(few), chatters, commits=True)

    def side(self, method: str) -> Side:
        return self.read if method in SAFE_METHODS else self.write

    def close(self) -> None:
        for side in (self.read, self.write, self.replica, self.chat_read, self.chat_write):
            if side is not None:
                side.engine.dispose()

    @asynccontextmanager
    async def session_scope(self, side: Side, request: Request | None = None) -> AsyncIterator[Session]:
        """A session in a slot: commits on the write side, rolls back on any error, waits at most SLOT_TIMEOUT.

        With `request`, a client that has gone while it waited is dropped. Only where the body has been read: to ask
        takes what comes next from the client.
        """
        waited = await self._take_slot(side)
        side.used.inc()
        try:
            if waited and request is not None and await request.is_disconnected():
                raise ClientGone
            async with _session(side) as session:
                yield session
        finally:
            side.used.dec()
            side.slots.release()

    @asynccontextmanager
    async def side_write(self) -> AsyncIterator[Session]:
        """A short writing session of a request that already holds a slot for reading.

        On PostgreSQL it takes no second slot: the write pool has a connection for every slot. On SQLite it takes
        the writing slot: a reader may wait for the writer, since a writer never waits for a reader.
        """
        if self.on_sqlite:
            async with self.session_scope(self.write) as session:
                yield session
        else:
            async with _session(self.write) as session:
                yield session

    @contextmanager
    def thread_scope(self, side: Side) -> Iterator[Session]:
        """The same as session_scope, for a thread of our own, such as one that runs a job."""
        with self._portal.wrap_async_context_manager(self.session_scope(side)) as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A short reading session without a slot, so that health is told however busy the slots are."""
        with Session(self.read.engine) as session:
            yield session

    async def _take_slot(self, side: Side) -> bool:
        """Whether it had to wait."""
        try:
            side.slots.acquire_nowait()
        except anyio.WouldBlock:
            metrics.count("slot_waits")
        else:
            return False
        try:
            with anyio.fail_after(self._timeout):
                await side.slots.acquire()
        except TimeoutError:
            metrics.count("slot_timeouts")
            raise Unavailable("The database is busy. Try again shortly.", retry_after=2) from None
        return True


@asynccontextmanager
async def _session(side: Side) -> AsyncIterator[Session]:
    session = Session(side.engine, expire_on_commit=False)
    try:
        yield session
        if side.commits and session.in_transaction():
            await in_thread(session.commit)
    finally:
        if side.commits and session.in_transaction():
            with CancelScope(shield=True):
                await in_thread(session.close)
        else:
            session.close()  # no I/O: the read side has no transaction to end


async def get_session(request: Request) -> AsyncIterator[Session]:
    database: Database = request.app.state.parts.database
    async with database.session_scope(database.side(request.method), request) as session:
        yield session


async def get_replica(request: Request, session: "SessionDep") -> AsyncIterator[Session]:
    database: Database = request.app.state.parts.database
    if database.replica is None:
        yield session
    else:
        async with _session(database.replica) as replica:  # in the slot of `session`, which authenticated
            yield replica


# "function": the commit happens before the response is sent, so a failed one can still be told.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
# For rows that may be some seconds old: of READ_DATABASE_URL, if there is one.
ReplicaDep = Annotated[Session, Depends(get_replica, scope="function")]


def after_commit(session: Session, call: Callable[[], object]) -> None:
    """Have `call` made once this session has committed, in the thread that did."""
    session.info.setdefault("after_commit", []).append(call)


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    for call in session.info.pop("after_commit", ()):
        call()

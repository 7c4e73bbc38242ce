"""The database: a read side, a write side, and the slots in front of them.

The database itself keeps the read side read-only, and it runs in AUTOCOMMIT; the write side commits. At most DB_SLOTS
sessions are open in a process; SQLite has one slot for writing.
docs/decisions/0002-sync-sessions-two-sides-slots.md says why.
"""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import anyio
from anyio import CancelScope
from anyio.from_thread import BlockingPortal
from sqlalchemy import Engine, event
from sqlmodel import Session

from app.core import metrics
from app.core.concurrency import in_thread
from app.core.dialects import make_engine
from app.core.errors import Unavailable
from app.core.settings import Settings

CHAT_SLOTS = 4  # sessions of sockets, streams and long polls, which take none of the requests' slots
SOCKET_CONNECTIONS = 2 * CHAT_SLOTS  # of each process on PostgreSQL, beside two for every slot
LEAST_ROOM = 1024 * 1024  # bytes on the disk of a SQLite database

P = ParamSpec("P")
T = TypeVar("T")


class Client(Protocol):
    """Whoever waits for the answer: a Starlette Request."""

    async def is_disconnected(self) -> bool: ...


class ClientGone(Exception):
    """The client left while its request waited for a slot, so nobody is there to answer."""


@dataclass(frozen=True)
class Side:
    """An engine and the slots in front of it."""

    engine: Engine
    slots: anyio.Semaphore
    commits: bool

    @cached_property
    def used(self) -> Any:
        """The gauge of its open sessions."""
        return metrics.slots("write" if self.commits else "read")


class Database:
    """Both sides. On PostgreSQL they share their slots; on SQLite the writer has one and the readers the rest."""

    def __init__(self, settings: Settings, portal: BlockingPortal) -> None:
        self._portal = portal
        self._timeout = settings.slot_timeout.total_seconds()
        slots = anyio.Semaphore(settings.db_slots, fast_acquire=True)
        writer_slots = anyio.Semaphore(1, fast_acquire=True) if settings.on_sqlite else slots
        self.on_sqlite = settings.on_sqlite
        self.read_side = Side(make_engine(settings, read_only=True), slots, commits=False)
        self.write_side = Side(make_engine(settings), writer_slots, commits=True)
        for_chat = settings.model_copy(update={"db_slots": CHAT_SLOTS})
        chat_slots = anyio.Semaphore(CHAT_SLOTS, fast_acquire=True)
        self.chat_read_side = Side(make_engine(for_chat, read_only=True), chat_slots, commits=False)
        self.chat_write_side = (
            self.write_side if settings.on_sqlite else Side(make_engine(for_chat), chat_slots, commits=True)
        )

    def close(self) -> None:
        for side in (self.read_side, self.write_side, self.chat_read_side, self.chat_write_side):
            side.engine.dispose()

    # ---- A session of its own for one function ----

    async def read(
        self, client: Client | None, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(session, …)` in a worker thread with a read-only session; None: nobody waits for it."""
        return await self.run(self.read_side, client, function, *args, **kwargs)

    async def write(
        self, client: Client | None, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(session, …)` in a worker thread in one transaction, committed when it returns."""
        return await self.run(self.write_side, client, function, *args, **kwargs)

    async def run(
        self,
        side: Side,
        client: Client | None,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        async with self.session_scope(side, client) as session:
            return await in_thread(function, session, *args, **kwargs)

    # ---- Sessions ----

    @asynccontextmanager
    async def session_scope(self, side: Side, client: Client | None = None) -> AsyncIterator[Session]:
        """A session in a slot: commits on the write side, rolls back on any error, waits at most SLOT_TIMEOUT.

        A `client` that has gone while it waited is dropped. Pass it only once the body has been read: to ask whether
        it is still there takes the next message from it.
        """
        waited = await self._take_slot(side)
        side.used.inc()
        try:
            if waited and client is not None and await client.is_disconnected():
                raise ClientGone
            async with _session(side) as session:
                yield session
        finally:
            side.used.dec()
            side.slots.release()

    @asynccontextmanager
    async def write_beside_read(self) -> AsyncIterator[Session]:
        """A short writing session for a request that already holds a slot for reading.

        On PostgreSQL it takes no second slot: the write pool has a connection for every slot. On SQLite it takes
        the writing slot: a reader may wait for the writer, since a writer never waits for a reader.
        """
        if self.on_sqlite:
            async with self.session_scope(self.write_side) as session:
                yield session
        else:
            async with _session(self.write_side) as session:
                yield session

    @contextmanager
    def thread_scope(self, *, write: bool = False) -> Iterator[Session]:
        """The same as session_scope for a thread of our own, such as one that runs a job."""
        side = self.write_side if write else self.read_side
        with self._portal.wrap_async_context_manager(self.session_scope(side)) as session:
            yield session

    @contextmanager
    def without_slot(self) -> Iterator[Session]:
        """A short read-only session that waits for no slot, so that health checks answer however busy the slots are."""
        with Session(self.read_side.engine) as session:
            yield session

    def can_write(self) -> bool:
        """Whether the disk under SQLite has room and is not read-only. PostgreSQL has to be watched where it runs."""
        file = str(self.write_side.engine.url.database)
        return not self.on_sqlite or (os.access(file, os.W_OK) and shutil.disk_usage(file).free >= LEAST_ROOM)

    async def _take_slot(self, side: Side) -> bool:
        """Take a slot and return whether it had to be waited for."""
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


# ---- Once the transaction is committed ----


def after_commit(session: Session, call: Callable[[], object]) -> None:
    """Call `call` once this session has committed, in the thread that committed it."""
    session.info.setdefault("after_commit", []).append(call)


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    for call in session.info.pop("after_commit", ()):
        call()

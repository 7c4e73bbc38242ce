"""The database: a read side, a write side, and the slots in front of them.

The database itself keeps the read side read-only, and it runs in AUTOCOMMIT; the write side commits. At most DB_SLOTS
requests have a session in a process; on SQLite one more writes. The chat and health checks have sessions of their own.
docs/decisions/0002-sync-sessions-two-sides-slots.md says why.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from tempfile import TemporaryFile
from typing import Any, Concatenate, Protocol
from uuid import UUID
from weakref import WeakValueDictionary

import anyio
from anyio.from_thread import BlockingPortal
from sqlalchemy import Engine, Select, event
from sqlmodel import Session

from app.core import metrics
from app.core.concurrency import P, T, in_thread
from app.core.dialects import CHAT_SLOTS, make_engine, reason
from app.core.errors import Unavailable
from app.core.logs import actor
from app.core.row_reader import CONNECTIONS, PostgresRowReader, RowReader, Rows, SqliteRowReader, read_rows
from app.core.settings import Settings

log = logging.getLogger("muster.database")

OTHER_CONNECTIONS = 2 * (CHAT_SLOTS + CONNECTIONS) + 1  # of each process on PostgreSQL, besides two for every slot
MIN_FREE_SPACE = 1024 * 1024  # bytes on the disk of a SQLite database


class Client(Protocol):
    """The client that waits for a response: a Starlette Request."""

    async def is_disconnected(self) -> bool: ...


class ClientGone(Exception):
    """The client left while its request waited for a slot, so nobody is left to respond to."""


@dataclass(frozen=True)
class Side:
    """An engine and the slots in front of it, for which a request waits at most `timeout` seconds."""

    engine: Engine
    slots: anyio.Semaphore
    timeout: float
    commits: bool

    @cached_property
    def counted(self) -> AbstractContextManager[None]:
        """A context, in which many may be at once, that counts an open session in the gauge of this side."""
        return metrics.slots_used.labels("write" if self.commits else "read").track_inprogress()

    async def __call__(
        self, client: Client | None, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(session, …)` in a slot and a worker thread, in a transaction of its own.

        Raises what `slot` raises. Pass a client only once the request's body has been read: checking the connection
        takes the next message from it.
        """

        def run() -> T:
            with self.transaction() as session:
                return function(session, *args, **kwargs)

        async with self.slot(client):
            return await in_thread(run)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session, committed at the end if this side writes. It opens its connection when it is first used. Health
        checks use one without a slot, and answer however busy the slots are."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session
            if self.commits and session.in_transaction():
                session.commit()

    @asynccontextmanager
    async def slot(self, client: Client | None = None) -> AsyncIterator[None]:
        """Hold a slot. Raises Unavailable after waiting `timeout` seconds, and ClientGone if `client` left meanwhile.

        With a client, it counts toward the share of the person who is signed in; pass None if nobody waits.
        """
        share = _share_of(actor.get() if client else None, self.slots)
        must_wait = share.locked() or not self.slots.value
        if must_wait:
            metrics.count("slot_waits")
        try:
            async with asyncio.timeout(self.timeout if must_wait else None) as wait, share, self.slots:
                wait.reschedule(None)  # nothing limits how long the slot is held
                with self.counted:
                    if must_wait and client is not None and await client.is_disconnected():
                        raise ClientGone
                    yield
        except TimeoutError:
            if not wait.expired():  # the timeout is the caller's own
                raise
            metrics.count("slot_timeouts")
            raise Unavailable("The database is busy. Try again shortly.", retry_after=2) from None


_shares: WeakValueDictionary[tuple[anyio.Semaphore, UUID], asyncio.Semaphore] = WeakValueDictionary()


def _share_of(person: UUID | None, slots: anyio.Semaphore) -> asyncio.Semaphore:
    """Half of the slots, which one person may take: whoever sends many slow requests delays only themselves."""
    share = asyncio.Semaphore(max((slots.max_value or 0) // 2, 1))  # anyio's takes 13 µs to make
    return _shares.setdefault((slots, person), share) if person else share


def _make_slots(count: int) -> anyio.Semaphore:
    return anyio.Semaphore(count, max_value=count, fast_acquire=True)


class Database:
    """The read side and the write side. On PostgreSQL they share DB_SLOTS; on SQLite the readers have them, and the
    writer has one of its own."""

    def __init__(self, settings: Settings, portal: BlockingPortal) -> None:
        self._portal, self._file = portal, settings.sqlite_file if settings.on_sqlite else None
        timeout = settings.slot_timeout.total_seconds()
        slots, chat_slots = _make_slots(settings.db_slots), _make_slots(CHAT_SLOTS)
        writer_slots = _make_slots(1) if settings.on_sqlite else slots
        self.read = Side(make_engine(settings, read_only=True), slots, timeout, commits=False)
        self.write = Side(make_engine(settings), writer_slots, timeout, commits=True)
        self.chat_read = replace(self.read, slots=chat_slots)
        self.chat_write = self.write if settings.on_sqlite else replace(self.write, slots=chat_slots)
        reader = SqliteRowReader if settings.on_sqlite else PostgresRowReader
        self.authentication_reader: RowReader = reader(settings, self._rows)
        self.list_reader: RowReader = reader(settings, self._rows)  # so that authentication does not wait for lists

    async def close(self) -> None:
        await self.authentication_reader.close()
        await self.list_reader.close()
        self.read.engine.dispose()
        self.write.engine.dispose()

    async def _rows(self, statement: Select[Any], parameters: dict[str, Any]) -> Rows:
        """Read rows through a session: the fallback of the row readers."""
        return await self.read(None, read_rows, statement, parameters)

    # ---- A session for a thread of our own ----

    @contextmanager
    def thread_scope(self, *, write: bool = False) -> Iterator[Session]:
        """A session in a slot, committed at the end if it may write, such as for a job."""
        side = self.write if write else self.read
        with self._portal.wrap_async_context_manager(side.slot()), side.transaction() as session:
            yield session

    def write_later(self, function: Callable[Concatenate[Session, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run `function(session, …)` on the write side without waiting for it. A failure is logged."""

        async def write() -> None:
            try:
                await self.write(None, function, *args, **kwargs)
            except Exception as error:
                log.warning("a write in the background failed: %s", reason(error))

        self._portal.start_task_soon(write)

    def can_write(self) -> bool:
        """Whether the disk under SQLite has room and is not read-only. PostgreSQL has to be watched where it runs."""
        if self._file is None:
            return True
        try:
            TemporaryFile(dir=self._file.parent).close()  # a disk that failed may call itself writable
        except OSError:
            return False
        return os.access(self._file, os.W_OK) and shutil.disk_usage(self._file).free >= MIN_FREE_SPACE


# ---- Once the transaction is committed ----


def after_commit(session: Session, call: Callable[[], object]) -> None:
    """Call `call` once this session has committed, in the thread that committed it."""
    session.info.setdefault("after_commit", []).append(call)


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    for call in session.info.pop("after_commit", ()):
        call()


@event.listens_for(Session, "after_rollback")
def _after_rollback(session: Session) -> None:
    session.info.pop("after_commit", None)

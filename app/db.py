"""The database: two engines, the slots in front of them, and the one session dependency.

Safe methods read through an engine that the database keeps read-only and in AUTOCOMMIT; all others write through one
that commits before the response leaves. At most DB_SLOTS requests hold a session; SQLite has one slot for writing.
"""

import select
import sqlite3
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from time import monotonic, sleep
from typing import Annotated, Any, TypeVar

import anyio
import psycopg
from anyio import CancelScope, to_thread
from anyio.from_thread import BlockingPortal
from fastapi import Depends, Request
from sqlalchemy import Engine, create_engine, event, exc, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import QueuePool
from sqlmodel import Session, SQLModel

from app import metrics
from app.errors import AppError, Conflict, EmailTaken, HeroNameTaken, TeamNameTaken, Unavailable
from app.models.values import ExactSum
from app.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CONNECT_TIMEOUT = 5  # seconds
BUSY_TIMEOUT = 5  # seconds that SQLite waits for another process's lock
CHAT_SLOTS = 4  # sessions of sockets, streams and long polls at once: they take none from the requests
SOCKET_CONNECTIONS = 2 * CHAT_SLOTS  # of each process on PostgreSQL, beside two for every slot

T = TypeVar("T")

# Which constraint, once violated, is which answer.
CONFLICTS: dict[str, type[Conflict]] = {
    "uq_user_email": EmailTaken,
    "uq_hero_name": HeroNameTaken,
    "uq_team_name": TeamNameTaken,
}


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


def insert_missing(session: Session, table: type[SQLModel], key: Sequence[str], **values: Any) -> None:
    """Insert a row unless there is one with the same `key`; the unique constraint decides between two at once."""
    session.connection().execute(insert_once(session, table, key).values(**values))


def insert_once(session: Session, table: type[SQLModel], key: Sequence[str]) -> sqlite.Insert | postgresql.Insert:
    """An insert that does nothing where there is a row with the same `key`."""
    insert = sqlite.insert if session.connection().dialect.name == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing(index_elements=key)


def make_engine(settings: Settings, *, read_only: bool = False) -> Engine:
    """An engine for one side, with all that makes it safe on its database."""
    return _sqlite_engine(settings, read_only) if settings.on_sqlite else _postgres_engine(settings, read_only)


def _sqlite_engine(settings: Settings, read_only: bool) -> Engine:
    url = make_url(settings.database_url)
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=settings.db_slots + 1 if read_only else 1,
        max_overflow=0,
        pool_timeout=settings.slot_timeout.total_seconds(),
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT, "isolation_level": None},
        **({"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True} if read_only else {}),
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # FULL: an acknowledged write survives a power cut, not only a crash of the process.
        _use_wal(connection)
        for pragma in ("foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        connection.create_aggregate("exact_sum", 1, ExactSum)  # type: ignore[arg-type]  # typeshed: int only

    if not read_only:

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            # The default transactions of SQLite lose updates silently; IMMEDIATE takes the write lock first.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """SQLite changes the journal mode at once or not at all, whatever its timeout: wait here instead."""
    deadline = monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            if monotonic() > deadline:
                raise
            sleep(0.02)


def _postgres_engine(settings: Settings, read_only: bool) -> Engine:
    milliseconds = int(settings.statement_timeout.total_seconds() * 1000)
    options = f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds * 6}"
    options += " -c timezone=UTC"  # the months of a summary are UTC's, wherever the server stands
    engine = create_engine(
        settings.database_url,
        pool_size=settings.db_slots + 1,  # one more for health
        max_overflow=0,
        pool_timeout=settings.slot_timeout.total_seconds(),
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives_idle": 30,
            "tcp_user_timeout": 30_000,
            "application_name": "muster",
            "options": f"{options} -c default_transaction_read_only=on" if read_only else options,
        },
        **({"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True} if read_only else {}),
    )

    @event.listens_for(engine, "checkout")
    def _refuse_dead(connection: psycopg.Connection, _record: object, _proxy: object) -> None:
        # A server that went away leaves an end-of-file to read; polling for it takes 10 µs, a ping 100 and more.
        if connection.closed or _readable(connection.fileno()):
            raise exc.DisconnectionError

    return engine


def _readable(descriptor: int) -> bool:
    poll = select.poll()  # select() ends at descriptor 1,023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def as_app_error(error: exc.SQLAlchemyError) -> AppError | None:
    """What the client is told of a database error; None for one that is our own fault."""
    if isinstance(error, exc.IntegrityError):
        return CONFLICTS.get(violated_constraint(error) or "", Conflict)()
    if isinstance(error, exc.TimeoutError) or _is_passing(error):
        return Unavailable("The database is busy or away. Try again shortly.", retry_after=2)
    return None


def _is_passing(error: exc.SQLAlchemyError) -> bool:
    if not isinstance(error, exc.DBAPIError):
        return False
    origin = error.orig
    if isinstance(origin, psycopg.OperationalError):
        # No SQLSTATE: the connection failed. 40: deadlock; 53: out of resources; 55P03, 57: locked, cancelled or
        # shutting down.
        state = origin.sqlstate
        return error.connection_invalidated or state is None or state.startswith(("08", "40", "53", "55P03", "57"))
    if isinstance(origin, sqlite3.OperationalError):
        return getattr(origin, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return error.connection_invalidated


def violated_constraint(error: exc.IntegrityError) -> str | None:
    """The name of the constraint by our naming convention, on both databases; None for a SQLite foreign key."""
    if isinstance(error.orig, psycopg.Error):
        return error.orig.diag.constraint_name
    kind, _, columns = str(error.orig).partition(" constraint failed: ")
    if kind == "CHECK":
        return columns
    if kind != "UNIQUE":
        return None
    table = columns.partition(".")[0]
    names = {column.strip().partition(".")[2] for column in columns.split(",")}
    return next(
        (
            str(constraint.name)
            for constraint in SQLModel.metadata.tables[table].constraints
            if {column.name for column in getattr(constraint, "columns", [])} == names and constraint.name
        ),
        None,
    )

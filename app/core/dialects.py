"""The differences between SQLite and PostgreSQL: engines, inserts, the meaning of errors, and exact decimals."""

import re
import select
import sqlite3
from decimal import Decimal
from errno import EDQUOT, ENOSPC
from importlib import import_module
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from sqlalchemy import Dialect, Engine, Numeric, String, TypeDecorator, create_engine, event, exc, make_url, text
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Session, SQLModel

from app.core.errors import AppError, Conflict, Unavailable
from app.core.settings import Settings

if TYPE_CHECKING:  # each database's driver and dialect are imported by SQLAlchemy, and take 10 MB on PostgreSQL
    import psycopg
    from sqlalchemy.dialects import postgresql, sqlite

CHAT_SLOTS = 4  # sessions of sockets, streams and long polls, which take none of the requests' slots
CONNECT_TIMEOUT = 5  # seconds
BUSY_TIMEOUT = 5  # seconds that SQLite waits for another process's lock


def make_engine(settings: Settings, *, read_only: bool = False) -> Engine:
    """An engine for the read side or the write side, configured for its database."""
    # The parameters of a statement may be secrets: no error repeats them.
    options: dict[str, Any] = {"max_overflow": 0, "hide_parameters": True}
    options["pool_timeout"] = settings.slot_timeout.total_seconds()
    options["pool_size"] = settings.db_slots + CHAT_SLOTS + 1  # one for each slot, and one for health
    if read_only:
        options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    engine = create_engine(settings.database_url, connect_args=connect_args(settings, read_only=read_only), **options)
    configure = _configure_sqlite if settings.on_sqlite else _configure_postgres
    configure(engine, read_only)
    return engine


def _configure_sqlite(engine: Engine, read_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        _use_wal(connection)
        connection.execute("PRAGMA foreign_keys=ON")
        # A committed write survives a power cut, not only a crash of the process.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA query_only={read_only}")
        if not read_only:  # an import changes pages all over six indexes: the default of 2 MB doubles its time
            connection.execute("PRAGMA cache_size=-65536")
        connection.create_aggregate("exact_sum", 1, ExactSum)  # type: ignore[arg-type]  # typeshed: int only

    if not read_only:
        # SQLite's default transactions lose updates silently. IMMEDIATE takes the write lock before the first read.
        # SQLAlchemy's event "begin" and its exec_driver_sql() would take 6% of a create's transaction.
        engine.dialect.do_begin = _begin_immediate  # type: ignore[assignment]  # of this engine alone

        @event.listens_for(engine, "handle_error")
        def _report_read_only_file(context: Any) -> None:
            # On the read side the same error means that our code writes where it must not.
            if getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
                raise Unavailable("The database cannot be written.", retry_after=10)


def _begin_immediate(connection: Any) -> None:
    connection.driver_connection.execute("BEGIN IMMEDIATE")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite's timeout does not apply to the journal mode, so this waits for the lock itself."""
    deadline = monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            if monotonic() > deadline:
                raise
            sleep(0.02)


def _configure_postgres(engine: Engine, read_only: bool) -> None:
    @event.listens_for(engine, "checkout")
    def _refuse_dead(connection: "psycopg.Connection", _record: object, _proxy: object) -> None:
        # A server that has closed the connection leaves an end-of-file to read. Polling the socket for it takes
        # 10 µs, SQLAlchemy's pre_ping 100 and more.
        if connection.closed or _readable(connection.fileno()):
            raise exc.DisconnectionError

    @event.listens_for(engine, "handle_error")
    def _connect_again(context: Any) -> None:
        # 0A000, feature not supported: the connection prepared the statement before a migration changed its table.
        # 25006, read-only: the server is a replica by now, and the address may lead to its successor. On the read side
        # the same error means that our code writes where it must not.
        if getattr(context.original_exception, "sqlstate", None) in ({"0A000"} if read_only else {"0A000", "25006"}):
            context.is_disconnect = True  # discards every connection of the pool


def connect_args(settings: Settings, *, read_only: bool) -> dict[str, Any]:
    """The options of every connection. On PostgreSQL, those in DATABASE_URL take precedence."""
    if settings.on_sqlite:
        return {"timeout": BUSY_TIMEOUT, "isolation_level": None}
    milliseconds = int(settings.statement_timeout.total_seconds() * 1000)
    options = f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds * 6}"
    options += " -c timezone=UTC"  # the months of a summary are in UTC, whatever the server's time zone
    if read_only:
        options += " -c default_transaction_read_only=on"
    ours: dict[str, Any] = {"application_name": "muster", "connect_timeout": CONNECT_TIMEOUT}
    ours |= {"keepalives_idle": 30, "tcp_user_timeout": 30_000}
    if settings.prepared_statements == "off":
        ours["prepare_threshold"] = None
    theirs = make_url(settings.database_url).query
    added = {name: value for name, value in ours.items() if name not in theirs}
    return {**added, "options": f"{options} {theirs.get('options', '')}"}


def _readable(descriptor: int) -> bool:
    poll = select.poll()  # select.select() takes descriptors up to 1,023 only
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def insert_missing(session: Session, table: type[SQLModel], **values: Any) -> None:
    """Insert a row unless a unique constraint forbids it, which also decides between concurrent inserts."""
    session.exec(dialect_insert(session, table).on_conflict_do_nothing().values(**values))


def dialect_insert(session: Session, table: type[SQLModel]) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT that supports ON CONFLICT, whose syntax is the same in both databases."""
    dialect = import_module(f"sqlalchemy.dialects.{session.connection().dialect.name}")
    insert: sqlite.Insert | postgresql.Insert = dialect.insert(table)
    return insert


def lift_statement_timeout(session: Session) -> None:
    """Let the other statements of this transaction take as long as they need. SQLite has no such limit."""
    if session.connection().dialect.name == "postgresql":
        session.connection().execute(text("SET LOCAL statement_timeout = 0"))


def as_app_error(error: exc.SQLAlchemyError | OSError) -> AppError | None:
    """The error to send to the client for a failure of the database or the disk; None if our code is at fault."""
    if isinstance(error, OSError):
        return Unavailable("The disk is full.", retry_after=10) if error.errno in {ENOSPC, EDQUOT} else None
    if isinstance(error, exc.IntegrityError):
        violated = violated_constraint(error)
        return next((kind for kind in Conflict.__subclasses__() if violated in kind.constraints), Conflict)()
    if isinstance(error, StaleDataError):
        return Conflict()  # the row was deleted after it was read
    if isinstance(error, exc.TimeoutError) or (isinstance(error, exc.DBAPIError) and _is_temporary(error)):
        detail = "The database is busy, unreachable, read-only or out of space. Try again shortly."
        return Unavailable(detail, retry_after=2)
    return None


def reason(error: Exception) -> str:
    """What may be logged of an error: the database's own message if it is out of service, otherwise only the class of
    the error, and never a row's values."""
    is_outage = isinstance(error, exc.SQLAlchemyError | OSError) and isinstance(as_app_error(error), Unavailable)
    return str(getattr(error, "orig", error)).partition("\n")[0] if is_outage else type(error).__name__


# The database is locked, or its disk is full, failing or missing.
_TEMPORARY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_TEMPORARY |= {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
# PostgreSQL's. 08: the connection failed; 40: deadlock; 53: out of resources; 55P03, 57: locked, canceled or shutting
# down; 58: the disk failed.
_TEMPORARY_STATES = ("08", "40", "53", "55P03", "57", "58")


def _is_temporary(error: exc.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.OperationalError):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _TEMPORARY
    if isinstance(error, exc.OperationalError) and not error.connection_invalidated:
        state = getattr(error.orig, "sqlstate", None)  # None: the connection failed
        return state is None or state.startswith(_TEMPORARY_STATES)
    return error.connection_invalidated


def violated_constraint(error: exc.IntegrityError) -> str | None:
    """The name of the violated unique constraint by our naming convention. PostgreSQL names others too."""
    if diag := getattr(error.orig, "diag", None):  # psycopg's
        name: str | None = diag.constraint_name
        return name
    columns = re.findall(r"(\w+)\.(\w+)", str(error.orig))  # UNIQUE constraint failed: hero.name
    return "_".join(["uq", columns[0][0], *(name for _, name in columns)]) if columns else None


# ---- Exact decimals: a column type, and an exact sum for SQLite ----

DECIMALS = 8


class _DecimalText(TypeDecorator[Decimal]):
    """An amount as text with eight decimals, since SQLite's NUMERIC is a float."""

    impl = String(21)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else f"{value:.{DECIMALS}f}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else Decimal(value)


ExactDecimal = Numeric[Decimal](20, DECIMALS).with_variant(_DecimalText(), "sqlite")


class ExactSum:
    """SQLite's aggregate exact_sum() over the texts of _DecimalText. It adds integers, so nothing is rounded."""

    def __init__(self) -> None:
        self._total = 0

    def step(self, amount: str) -> None:
        self._total += int(amount.replace(".", ""))

    def finalize(self) -> str:
        digits = f"{self._total:0{DECIMALS + 1}d}"
        return f"{digits[:-DECIMALS]}.{digits[-DECIMALS:]}"

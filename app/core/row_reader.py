"""Rows read on the event loop: one short query, without a session, a slot or a worker thread.

Authentication reads one row at each request. On PostgreSQL that takes 1.1 ms of CPU through a session in a thread, and
0.4 ms like this (docs/performance.md). On SQLite a reader never waits for the writer (WAL). If the file is locked all
the same, a connection has died, or the query takes long, the rows are read through a session, which waits and reports
errors as usual.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import cache, partial
from time import perf_counter
from typing import Any, TypeAlias

from sqlalchemy import Dialect, Select, exc, make_url
from sqlmodel import Session

from app.core.dialects import connect_args, make_engine
from app.core.errors import Unavailable
from app.core.settings import Settings

Rows: TypeAlias = list[dict[str, Any]]
Fallback: TypeAlias = Callable[[Select[Any], dict[str, Any]], Awaitable[Rows]]

CONNECTIONS = 4  # of each reader on PostgreSQL: a query holds one for less than a millisecond
# How long a query may take here. On SQLite nothing else runs meanwhile; on PostgreSQL it holds a connection.
_SQLITE_SECONDS = 0.02
_POSTGRES_TIMEOUT = timedelta(seconds=1)


def read_rows(session: Session, statement: Select[Any], parameters: dict[str, Any]) -> Rows:
    return [dict(row) for row in session.connection().execute(statement, parameters).mappings()]


class SqliteRowReader:
    """Reads with a connection of its own, which refuses to wait, and stops a query that takes long."""

    def __init__(self, settings: Settings, fallback: Fallback) -> None:
        self._engine, self._fallback = make_engine(settings, read_only=True), fallback
        self._connection: Any = None
        self._deadline = 0.0

    async def all(self, statement: Select[Any], parameters: dict[str, Any]) -> Rows:
        try:
            connection = self._connection or self._connect()
            self._deadline = perf_counter() + _SQLITE_SECONDS
            return _prepared(statement, self._engine.dialect)(connection, parameters)
        except (sqlite3.OperationalError, exc.OperationalError):
            return await self._fallback(statement, parameters)

    def _connect(self) -> Any:
        pooled = self._engine.raw_connection()
        self._connection = pooled.driver_connection
        pooled.detach()
        self._connection.execute("PRAGMA busy_timeout=0")
        # Called after every 1,000 instructions of SQLite's virtual machine; a row takes about 25.
        self._connection.set_progress_handler(lambda: perf_counter() > self._deadline, 1000)
        return self._connection

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


@cache
def _prepared(statement: Select[Any], dialect: Dialect) -> Callable[[sqlite3.Connection, dict[str, Any]], Rows]:
    """A function that runs this statement on the driver's connection, with SQLAlchemy's type conversions, in half the
    time that a connection of SQLAlchemy takes."""
    compiled: Any = statement.compile(dialect=dialect)
    columns: Any = statement.selected_columns
    sql, names, defaults = str(compiled), compiled.positiontup, compiled.params
    types = {name: compiled.binds[name].type.dialect_impl(dialect) for name in names}
    bind = {name: process for name, type_ in types.items() if (process := type_.bind_processor(dialect))}
    converters = [(column.key, column.type.dialect_impl(dialect).result_processor(dialect, None)) for column in columns]

    def rows(connection: sqlite3.Connection, parameters: dict[str, Any]) -> Rows:
        sent = defaults | parameters
        values = [bind[name](sent[name]) if name in bind else sent[name] for name in names]
        return [
            {key: convert(value) if convert else value for (key, convert), value in zip(converters, row, strict=True)}
            for row in connection.execute(sql, values).fetchall()
        ]

    return rows


class PostgresRowReader:
    """Reads with a few asynchronous connections, opened when they are first needed."""

    def __init__(self, settings: Settings, fallback: Fallback) -> None:
        import psycopg  # noqa: PLC0415  # 9 MB that a process on SQLite need not hold
        from psycopg.rows import dict_row  # noqa: PLC0415  # the same

        url = settings.database_url.replace("+psycopg", "", 1)
        brief = settings.model_copy(update={"statement_timeout": min(_POSTGRES_TIMEOUT, settings.statement_timeout)})
        options = connect_args(brief, read_only=True)
        self._connect = partial(psycopg.AsyncConnection.connect, url, **options, autocommit=True, row_factory=dict_row)
        # NotSupportedError: the connection prepared the statement before a migration changed its table.
        self._failures = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.NotSupportedError, OSError)
        self._timeout, self._fallback = settings.slot_timeout.total_seconds(), fallback
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[psycopg.AsyncConnection[dict[str, Any]]] = []

    async def all(self, statement: Select[Any], parameters: dict[str, Any]) -> Rows:
        """Raises Unavailable if it takes longer than a request may wait for a slot."""
        try:
            async with asyncio.timeout(self._timeout), self._places:  # anyio.fail_after() takes 4% of a request
                sql, defaults = _sql(statement)
                return await self._read(sql, defaults | parameters)
        except TimeoutError:  # a subclass of OSError, so it comes first
            raise Unavailable("The database is busy. Try again shortly.", retry_after=2) from None
        except self._failures:
            return await self._fallback(statement, parameters)

    async def _read(self, sql: str, parameters: dict[str, Any]) -> Rows:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            rows = await (await connection.execute(sql, parameters)).fetchall()
        except BaseException:  # even when canceled in mid-query: the next query would read this one's response
            await connection.close()
            raise
        self._idle.append(connection)
        return rows

    async def close(self) -> None:
        for connection in self._idle:
            await connection.close()


@cache
def _sql(statement: Select[Any]) -> tuple[str, dict[str, Any]]:
    """The statement as psycopg takes it, and the values of the constants in it."""
    compiled = statement.compile(dialect=make_url("postgresql+psycopg://").get_dialect()())
    return str(compiled), compiled.params


RowReader: TypeAlias = SqliteRowReader | PostgresRowReader

"""Rows read on the event loop: one query by key, without a session, a slot or a worker thread.

Authentication reads one row a request. Through a session in a thread that read takes 1.1 ms of CPU on PostgreSQL, and
0.4 ms like this (docs/performance.md). On SQLite a reader never waits for the writer (WAL). If the file is locked all
the same, or a connection has died, the row is read through a session, which waits and reports errors as usual.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any, TypeAlias

import anyio
from sqlalchemy import Connection, RowMapping, Select, make_url
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from app.core.dialects import connect_args, make_engine
from app.core.errors import Unavailable
from app.core.settings import Settings

Row: TypeAlias = RowMapping | dict[str, Any] | None
SlowWay: TypeAlias = Callable[[Select[Any], dict[str, Any]], Awaitable[Row]]

CONNECTIONS = 4  # of each process on PostgreSQL: a query holds one for less than a millisecond


def first_row(session: Session, statement: Select[Any], parameters: dict[str, Any]) -> Row:
    return session.connection().execute(statement, parameters).mappings().first()


class SqliteRowReader:
    """Reads with a connection of its own, which refuses to wait."""

    def __init__(self, settings: Settings, slow_way: SlowWay) -> None:
        self._engine, self._slow_way = make_engine(settings, read_only=True), slow_way
        self._connection: Connection | None = None

    async def first(self, statement: Select[Any], parameters: dict[str, Any]) -> Row:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                self._connection.exec_driver_sql("PRAGMA busy_timeout=0")
            return self._connection.execute(statement, parameters).mappings().first()
        except OperationalError:
            return await self._slow_way(statement, parameters)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


class PostgresRowReader:
    """Reads with a few asynchronous connections, opened when they are first needed."""

    def __init__(self, settings: Settings, slow_way: SlowWay) -> None:
        from psycopg import AsyncConnection, Error  # noqa: PLC0415  # 9 MB that a process on SQLite need not hold
        from psycopg.rows import dict_row  # noqa: PLC0415  # the same

        url, options = settings.database_url.replace("+psycopg", "", 1), connect_args(settings, read_only=True)
        self._connect = partial(AsyncConnection.connect, url, **options, autocommit=True, row_factory=dict_row)
        self._failures = (Error, OSError)
        self._timeout, self._slow_way = settings.slot_timeout.total_seconds(), slow_way
        self._places = anyio.Semaphore(CONNECTIONS, fast_acquire=True)
        self._idle: list[AsyncConnection[dict[str, Any]]] = []

    async def first(self, statement: Select[Any], parameters: dict[str, Any]) -> Row:
        """Raises Unavailable if it takes longer than a request may wait for a slot."""
        try:
            async with asyncio.timeout(self._timeout), self._places:  # anyio.fail_after() takes 4 % of a request
                return await self._read(_sql(statement), parameters)
        except TimeoutError:  # a subclass of OSError, so it comes first
            raise Unavailable("The database is busy. Try again shortly.", retry_after=2) from None
        except self._failures:
            return await self._slow_way(statement, parameters)

    async def _read(self, sql: str, parameters: dict[str, Any]) -> Row:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            row = await (await connection.execute(sql, parameters)).fetchone()
        except BaseException:  # also when canceled in mid-query: the next query would read this one's response
            await connection.close()
            raise
        self._idle.append(connection)
        return row

    async def close(self) -> None:
        for connection in self._idle:
            await connection.close()


@cache
def _sql(statement: Select[Any]) -> str:
    dialect = make_url("postgresql+psycopg://").get_dialect()
    return str(statement.compile(dialect=dialect()))


RowReader: TypeAlias = SqliteRowReader | PostgresRowReader

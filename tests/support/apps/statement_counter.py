"""The application with headers about the SQL statements of each response, without those of its jobs: how many they were
and, on SQLite, the steps of their plans."""

from contextvars import ContextVar
from itertools import count
from typing import Any

from sqlalchemy import Connection, Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import database
from app.core.row_reader import PostgresRowReader, Rows, SqliteRowReader
from app.main import create_api

_statements: ContextVar["count[int] | None"] = ContextVar("statements", default=None)  # of one request
_plans: ContextVar[list[str] | None] = ContextVar("plans", default=None)


@event.listens_for(Engine, "before_cursor_execute")
def _note(connection: Connection, _cursor: object, statement: str, parameters: Any, *_: Any) -> None:
    _count()
    plans = _plans.get()
    if plans is not None and connection.dialect.name == "sqlite" and statement.startswith("SELECT"):
        driver: Any = connection.connection.driver_connection
        plans += [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]


def _count() -> None:
    statements = _statements.get()
    if statements is not None:
        next(statements)


class CountingReader:
    """Counts the reads on the event loop, for which SQLAlchemy has no event."""

    async def all(self, *query: Any) -> Rows:
        _count()
        rows: Rows = await super().all(*query)  # type: ignore[misc]  # a mixin
        return rows


class Counting:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        statements, plans = count(), list[str]()
        _statements.set(statements)
        _plans.set(plans)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = {"statements": str(next(statements)), "plans": "; ".join(plans)}
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), headers[name].encode()) for name in headers),
                ]
            await send(message)

        await self.app(scope, receive, tell if scope["type"] == "http" else send)


for reader in (PostgresRowReader, SqliteRowReader):
    vars(database)[reader.__name__] = type(reader.__name__, (CountingReader, reader), {})
app = create_api()
app.add_middleware(Counting)

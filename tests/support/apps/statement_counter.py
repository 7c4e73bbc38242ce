"""The application with a header that counts the SQL statements of each response, without those of its jobs."""

from contextvars import ContextVar
from itertools import count
from typing import Any

from sqlalchemy import Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import database
from app.core.row_reader import PostgresRowReader, Rows, SqliteRowReader
from app.main import create_api

_statements: ContextVar["count[int] | None"] = ContextVar("statements", default=None)  # of one request


@event.listens_for(Engine, "before_cursor_execute")
def _count(*_: Any) -> None:
    statements = _statements.get()
    if statements is not None:
        next(statements)


class CountingReader:
    """SQLAlchemy has no event for what is read on the event loop."""

    async def all(self, *query: Any) -> Rows:
        _count()
        rows: Rows = await super().all(*query)  # type: ignore[misc]  # a mixin
        return rows


class Counting:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        statements = count()
        _statements.set(statements)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"statements", str(next(statements)).encode())]
            await send(message)

        await self.app(scope, receive, tell if scope["type"] == "http" else send)


for reader in (PostgresRowReader, SqliteRowReader):
    vars(database)[reader.__name__] = type(reader.__name__, (CountingReader, reader), {})
app = create_api()
app.add_middleware(Counting)

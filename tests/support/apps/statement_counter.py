"""The application with a header that counts the SQL statements of each response, without those of its jobs."""

from contextvars import ContextVar
from itertools import count
from typing import Any

from sqlalchemy import Engine, Select, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import database
from app.core.row_reader import PostgresRowReader, Rows
from app.main import create_api

_statements: ContextVar["count[int] | None"] = ContextVar("statements", default=None)  # of one request


@event.listens_for(Engine, "before_cursor_execute")
def _count(*_: Any) -> None:
    statements = _statements.get()
    if statements is not None:
        next(statements)


class CountingRowReader(PostgresRowReader):
    """SQLAlchemy has no event for what it reads."""

    async def all(self, statement: Select[Any], parameters: dict[str, Any]) -> Rows:
        _count()
        return await super().all(statement, parameters)


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


vars(database)["PostgresRowReader"] = CountingRowReader
app = create_api()
app.add_middleware(Counting)

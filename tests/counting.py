"""The application, telling in a header how many statements an answer took. Served like the real one, one by one."""

from itertools import count
from typing import Any

from sqlalchemy import Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.main import create_app

_statements = count()


@event.listens_for(Engine, "before_cursor_execute")
def _count(*_: Any) -> None:
    next(_statements)


class Counting:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        before = next(_statements)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                taken = str(next(_statements) - before - 1)
                message["headers"] = [*message["headers"], (b"statements", taken.encode())]
            await send(message)

        await self.app(scope, receive, tell if scope["type"] == "http" else send)


app = create_app()
app.add_middleware(Counting)

"""The floor that Muster is measured against: GET /api/users/me on Starlette and the bare database driver.

It has the same SQL, token check, rules and JSON as Muster, under the same server with the same loop and parser, but no
FastAPI, no SQLAlchemy at run time, no slots, limits, request ids or headers. On PostgreSQL it uses psycopg's async
connections, which are a quarter to a half faster here than sync ones in threads. On SQLite it uses the sqlite3 module
in threads: without threads it would cost half as much, and one slow statement would block everybody.
"""

import json
from asyncio import LifoQueue
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from sqlite3 import Connection, connect
from typing import Any
from uuid import UUID

from anyio import to_thread
from psycopg import AsyncConnection
from pydantic_core import to_json
from sqlalchemy.dialects import postgresql, sqlite
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.core.settings import get_settings
from app.models.base import utcnow
from app.models.refresh_token import SessionSnapshot
from app.oauth2.access_tokens import AccessTokenSigner
from app.oauth2.refresh_tokens import SESSION_QUERY

settings = get_settings()
signer = AccessTokenSigner(settings.secret_keys, settings.public_url)

ReadSession = Callable[[UUID], Awaitable[SessionSnapshot | None]]


async def me(request: Request) -> Response:
    now = utcnow()
    claims = signer.verify(request.headers["authorization"].removeprefix("Bearer "), now)
    read_session: ReadSession = request.app.state.read_session
    session = await read_session(claims.session_id)
    if session is None or session.user_id != claims.subject or not session.is_live(now):
        return Response(status_code=401)
    if "me" not in session.scopes().intersection(claims.scope.split()):
        return Response(status_code=403)
    account = {
        "email": session.email,
        "name": session.name,
        "id": session.user_id,
        "role": session.role,
        "scopes": session.role_scopes,
        "is_active": bool(session.is_active),
        "is_verified": bool(session.is_verified),
        "created_at": session.user_created_at,
    }
    return Response(to_json(account), media_type="application/json")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        app.state.read_session = _on_sqlite() if settings.on_sqlite else await _on_postgres(stack)
        yield


async def _on_postgres(stack: AsyncExitStack) -> ReadSession:
    statement = str(SESSION_QUERY.compile(dialect=postgresql.psycopg.dialect()))  # type: ignore[no-untyped-call]  # SQLAlchemy's
    url = settings.database_url.replace("+psycopg", "")
    pool: LifoQueue[AsyncConnection] = LifoQueue()
    for _ in range(settings.db_slots):
        connection = await AsyncConnection.connect(url, autocommit=True)
        pool.put_nowait(await stack.enter_async_context(connection))

    async def read_session(session_id: UUID) -> SessionSnapshot | None:
        connection = await pool.get()
        try:
            cursor = await connection.execute(statement, {"id": session_id})
            row = await cursor.fetchone()
        finally:
            pool.put_nowait(connection)
        return SessionSnapshot(**dict(zip(_NAMES, row, strict=True))) if row else None

    return read_session


def _on_sqlite() -> ReadSession:
    statement = str(SESSION_QUERY.compile(dialect=sqlite.dialect(paramstyle="qmark")))
    path = settings.sqlite_file
    to_thread.current_default_thread_limiter().total_tokens = settings.db_slots
    pool = [connect(path, check_same_thread=False, isolation_level=None) for _ in range(settings.db_slots)]

    def read(session_id: UUID) -> SessionSnapshot | None:
        connection: Connection = pool.pop()  # there are as many connections as threads
        try:
            row = connection.execute(statement, [session_id.hex]).fetchone()
        finally:
            pool.append(connection)
        return _of_text(row) if row else None

    async def read_session(session_id: UUID) -> SessionSnapshot | None:
        return await to_thread.run_sync(read, session_id)

    return read_session


_NAMES = SESSION_QUERY.selected_columns.keys()
_TIMES = ("idle_expires_at", "absolute_expires_at", "revoked_at", "user_created_at")


def _of_text(row: tuple[Any, ...]) -> SessionSnapshot:
    """SQLite returns text where PostgreSQL's driver returns values; only the columns in use are parsed."""
    values = dict(zip(_NAMES, row, strict=True))
    for name in _TIMES:
        values[name] = values[name] and datetime.fromisoformat(values[name]).replace(tzinfo=UTC)
    values["user_id"] = UUID(values["user_id"])
    values["role_scopes"] = json.loads(values["role_scopes"])
    return SessionSnapshot(**values)


async def is_ready(_request: Request) -> Response:
    return Response()


app = Starlette(routes=[Route("/api/users/me", me), Route("/health/ready", is_ready)], lifespan=lifespan)

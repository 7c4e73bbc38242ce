import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
import json
from queue import LifoQueue
import asyncio
from typing import Any
from uuid import UUID

import psycopg
import uvicorn
from anyio import to_thread
from pydantic_core import to_json
from sqlalchemy.dialects import postgresql, sqlite
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.models import utcnow
from app.security import AccessTokenSigner
from app.sessions import _SESSION, SessionState
from app.settings import get_settings

MODE = os.environ.get("MODE", "async")
N = int(os.environ.get("N", 16))

settings = get_settings()
signer = AccessTokenSigner(settings.secret_keys, settings.public_url)

def answer(claims, state, now):
    if state.user_id != claims.subject or not state.is_live(now) or "me" not in state.scopes() & claims.scope:
        return Response(status_code=401)
    return Response(to_json({"email": state.email, "name": state.name, "id": state.user_id, "role": state.role, "scopes": state.role_scopes, "is_active": state.is_active, "is_verified": state.is_verified, "created_at": state.user_created_at}), media_type="application/json")

if settings.on_sqlite:
    from sqlalchemy.dialects.sqlite.base import SQLiteDialect
    SQL = str(_SESSION.compile(dialect=sqlite.dialect(paramstyle="qmark")))
    def conn():
        c = sqlite3.connect(settings.database_url.removeprefix("sqlite:///"), check_same_thread=False, isolation_level=None)
        c.execute("PRAGMA query_only=ON")
        return c
    T = lambda v: datetime.fromisoformat(v).replace(tzinfo=UTC) if v else None
    def run(c, id):
        r = c.execute(SQL, (id.hex,)).fetchone()
        return SessionState(UUID(r[0]), *r[1:9], r[9], r[10], T(r[11]), T(r[12]), T(r[13]), UUID(r[14]), *r[15:17], bool(r[17]), bool(r[18]), r[19], T(r[20]), r[21], json.loads(r[22]))
else:
    SQL = str(_SESSION.compile(dialect=postgresql.psycopg.dialect())).replace("%(session_id)s::UUID", "%s")
    def conn():
        return psycopg.connect(settings.database_url.replace("+psycopg", ""), autocommit=True, prepare_threshold=1)
    def run(c, id):
        r = c.execute(SQL, (id,)).fetchone()
        return SessionState(*r)

pool = LifoQueue()

def fetch(id):
    c = pool.get()
    try:
        return run(c, id)
    finally:
        pool.put(c)

apool = asyncio.LifoQueue()
async def afetch(id):
    c = await apool.get()
    try:
        r = await (await c.execute(SQL, (id,))).fetchone()
        return SessionState(*r)
    finally:
        apool.put_nowait(c)

async def me(request: Request) -> Response:
    now = utcnow()
    claims = signer.verify(request.headers["authorization"][7:], now)
    if MODE == "async":
        state = await afetch(claims.session_id)
    elif MODE == "inline":
        state = fetch(claims.session_id)
    else:
        state = await to_thread.run_sync(fetch, claims.session_id)
    return answer(claims, state, now)

@asynccontextmanager
async def lifespan(app):
    if MODE == "async":
        for _ in range(N):
            apool.put_nowait(await psycopg.AsyncConnection.connect(settings.database_url.replace("+psycopg", ""), autocommit=True, prepare_threshold=1))
    else:
        to_thread.current_default_thread_limiter().total_tokens = N
        for _ in range(N): pool.put(conn())
    yield

app = Starlette(routes=[Route("/api/users/me", me)], lifespan=lifespan)
if __name__ == "__main__":
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False, server_header=False, proxy_headers=False)

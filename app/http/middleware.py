"""What every request passes, as plain ASGI: its id, its log line, the headers of its answer, and a last catch."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any
from uuid import uuid4

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import metrics
from app.core.concurrency import in_thread
from app.core.database import ClientGone
from app.core.errors import ContentTooLarge, HeadTooLarge, NotFound
from app.core.logs import request_id
from app.core.schema import reason_not_to_start
from app.core.settings import Settings

log = logging.getLogger("muster.request")

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# A client may write any word there: as a label it would be a series of its own.
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_WHO = ("user_id", "session_id")  # app/authentication.py notes them
_MAX_HEAD = 32 * 1024  # bytes of the address and all headers
# A slash, a backslash or a NUL in disguise: whoever decodes a path at another moment would see another path.
_DISGUISED = re.compile(rb"%(?:2f|5c|00)", re.IGNORECASE)


class RequestContext:
    """Outermost: X-Request-ID (the client's if it is sane), caching headers and those of `headers` that an answer has
    none of itself, one log line."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self.app = app
        self._headers = [(name.encode(), text.encode()) for name, text in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        identifier = _client_id(scope) or uuid4().hex
        request_id.set(identifier)
        started, status = perf_counter(), 499  # 499: the client left before the answer
        if scope["type"] == "websocket":
            await self._follow_socket(scope, receive, send, started)
            return

        async def send_ours(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message["headers"], identifier, self._headers)
                if cookie := scope.get("state", {}).get("set_cookie"):  # app/authentication.py's
                    message["headers"].append((b"set-cookie", cookie.encode()))
            await send(message)

        try:
            await self.app(scope, receive, send_ours)
        finally:
            _note(scope, status, perf_counter() - started)

    async def _follow_socket(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        code, accepted = 403, False  # what the server answers where nobody accepts it

        async def receive_noting() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect" and accepted:
                code = message.get("code", code)
            return message

        async def send_noting(message: Message) -> None:
            nonlocal code, accepted
            if message["type"] == "websocket.accept":
                code, accepted = 1006, True  # RFC 6455 section 7.1.5: it broke
            elif message["type"] == "websocket.close" and accepted:
                code = message.get("code", 1000)
            await send(message)

        try:
            await self.app(scope, receive_noting, send_noting)
        finally:
            route, seconds = _template(scope), round(perf_counter() - started, 1)
            fields = {"method": "WS", "route": route, "code": code, "seconds": seconds}
            log.info("WS %s closed with %d after %.1f s", route, code, seconds, extra={"fields": fields | _who(scope)})


class CatchAll:
    """Innermost but for the router: no exception reaches the server, which would drop the client's connection."""

    def __init__(self, app: ASGIApp, answer: Callable[[Request, Exception], Awaitable[Response]]) -> None:
        self.app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = too_large = False

        async def send_noting(message: Message) -> None:
            nonlocal started, too_large
            if _is_frameworks_413(message):
                too_large = True
                raise ContentTooLarge
            started = True
            await send(message)

        try:
            _check_head(scope)
            await self.app(scope, receive, send_noting)
        except (ClientGone, ClientDisconnect):
            metrics.count("clients_gone")
        except Exception as error:
            if started:
                raise  # half an answer cannot be mended: dropping the connection is what tells the client
            # Starlette wraps what is raised over an answer that it has already begun.
            response = await self._answer(Request(scope), ContentTooLarge() if too_large else error)
            await response(scope, receive, send)


class MigrationCheck:
    """Ends the start with one line instead of failing every request, while the database is not migrated."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and (reason := await in_thread(reason_not_to_start, self._settings)):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": reason})
            return
        await self.app(scope, receive, send)


def _note(scope: Scope, status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    route, milliseconds = _template(scope), round(seconds * 1000, 1)
    metrics.count_request(method, route, status, seconds)
    fields = {"method": method, "route": route, "status": status, "milliseconds": milliseconds}
    log.info("%s %s %d %.1f ms", method, route, status, milliseconds, extra={"fields": fields | _who(scope)})


def _who(scope: Scope) -> dict[str, str]:
    return {name: str(scope["state"][name]) for name in _WHO if name in scope.get("state", ())}


def _check_head(scope: Scope) -> None:
    """Raise what is wrong with the head of a request, whatever its route."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEAD:
        raise HeadTooLarge
    if _DISGUISED.search(scope["raw_path"]):
        raise NotFound


def _is_frameworks_413(message: Message) -> bool:
    """Starlette's body limit answers in plain text, also over an answer of ours."""
    start = message["type"] == "http.response.start" and message["status"] == 413
    return start and (b"content-type", b"text/plain; charset=utf-8") in message["headers"]


def _client_id(scope: Scope) -> str | None:
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return sent.decode() if _SANE_ID.fullmatch(sent) else None


def _add_headers(headers: list[tuple[bytes, bytes]], identifier: str, ours: list[tuple[bytes, bytes]]) -> None:
    names = {name for name, _ in headers}
    headers.extend((name, text) for name, text in ours if name not in names)
    headers.append((b"x-request-id", identifier.encode()))
    headers.append((b"x-content-type-options", b"nosniff"))
    if b"cache-control" not in names:
        # Private answers: a shared cache keeps none, and the browser asks before it shows its own copy.
        headers.append((b"cache-control", b"private, no-cache"))
        headers.append((b"vary", b"Authorization, Cookie"))


def _template(scope: Scope) -> str:
    route: Any = scope.get("route")
    return getattr(route, "path", "-")

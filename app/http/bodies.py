"""Request bodies: limits on their size, their pace and how many a network sends at once; discarding unread ones."""

from collections import Counter
from time import monotonic

from anyio import move_on_after
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.settings import Settings
from app.http.rate_limit import by_network

MAX_ARRIVING = 64  # bodies that one network sends at once
# The rest of an unread body, up to 16 MiB, is discarded for this many seconds. Closing the connection at once would
# reset it, and the client would lose the response (RFC 9112 section 9.6).
LINGER = 5


def max_body(scope: Scope, settings: Settings) -> int:
    return settings.import_max_body if scope["path"] == "/api/operations/import" else settings.max_body


def announced_length(scope: Scope) -> int | None:
    """The bytes of the body that the headers announce: 0 if it comes in chunks, None if there is none."""
    headers = dict(scope["headers"])
    return 0 if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0)) or None


class BodyGuard:
    """Middleware that limits request bodies, and reads each to its end before the response ends."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self._settings = app, settings
        self._arriving: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or announced_length(scope) is None:
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive, send, self._settings, self._arriving)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            body.end()


class _Body:
    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings, arriving: Counter[str]) -> None:
        self._receive, self._send, self._arriving = receive, send, arriving
        self._network = by_network(Request(scope))
        self._limit, self._timeout = max_body(scope, settings), settings.body_timeout.total_seconds()
        self._size, self._waited = 0, 0.0
        self._is_counted = self._has_ended = False

    async def receive(self) -> Message:
        """The next message, or an HTTPException: FastAPI turns any other error while it reads a body into a 400."""
        if self._has_ended:
            return await self._receive()
        # The body may take the time that it needs at 4096 bytes a second, and BODY_TIMEOUT more.
        message = await self._next(self._timeout + self._size / 4096 - self._waited)
        if message is None:
            raise HTTPException(408)
        if self._size > self._limit:
            raise HTTPException(413)
        if not self._has_ended and not self._is_counted:
            if self._arriving[self._network] >= MAX_ARRIVING:
                raise HTTPException(429, headers={"Retry-After": "1"})
            self._is_counted = True
            self._arriving[self._network] += 1
        return message

    async def send(self, message: Message) -> None:
        if self._has_ended or message["type"] != "http.response.body" or message.get("more_body"):
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with move_on_after(LINGER):
            most = self._size + 16 * 1024 * 1024  # bytes: see LINGER
            while not self._has_ended and self._size < most:
                await self._next(LINGER)
        await self._send({"type": "http.response.body"})

    def end(self) -> None:
        self._has_ended = True
        self._arriving -= Counter({self._network: self._is_counted})  # drops zeros
        self._is_counted = False

    async def _next(self, seconds: float) -> Message | None:
        """The next message, or None if it does not arrive in time. Only waiting for the client counts."""
        started, message = monotonic(), None
        with move_on_after(seconds):
            message = await self._receive()
            self._size += len(message.get("body", b""))
            if not message.get("more_body"):
                self.end()
        self._waited += monotonic() - started
        return message

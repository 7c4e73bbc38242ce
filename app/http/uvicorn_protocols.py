"""Uvicorn's protocols, hardened against endless heads, clients that never read, and requests during a shutdown."""

import asyncio

from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

PART = 4096  # bytes of frames that are parsed at once


class HttpProtocol(HttpToolsProtocol):
    """HTTP with bounds on unterminated heads, and a shutdown that every request learns of.

    The parser buffers a line or header of any length, and waits forever for its end. Uvicorn stops the application only
    once all requests are answered, so this calls `on_shutdown` of the lifespan's state before, to end long polls and
    streams. And uvicorn reports a disconnect only to the newest of pipelined requests, while the running one goes on.
    """

    _unparsed = 0  # bytes since the parser last completed a head or a part of a body
    _running: RequestResponseCycle | None = None
    _is_stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        # Above the largest head that app/http/middleware.py answers with a problem, with room for the framing.
        if self._unparsed > 256 * 1024 and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        if len(self.pipeline) > 100:  # requests that wait for the one before them on this connection
            raise ValueError  # ends the connection: to parse thousands takes seconds, in which nobody is served
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        self._head_timer.cancel()
        # A copy: uvicorn appends trailers to its own list, and a proxy may pass on anybody's (RFC 9110 section 6.5.1).
        self.scope["headers"] = [*self.headers]
        super().on_headers_complete()
        if self._is_stopping and self.cycle is not None:  # a WebSocket handshake has none
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _should_upgrade_to_ws(self) -> bool:
        """Treat an incomplete handshake (RFC 6455 section 4.1) as an ordinary request."""
        names = [name for name, _ in self.headers]
        is_whole = names.count(b"host") == 1 and {b"sec-websocket-key", b"sec-websocket-version"} <= set(names)
        return is_whole and super()._should_upgrade_to_ws()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: uvicorn would report the client's mistake as a missing library."""

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        if not self.pipeline and self.cycle.more_body:
            self.transport.close()  # app/http/bodies.py has given up on the rest of the body
        super().on_response_complete()
        self._expect_head()  # of a head that began meanwhile: its next byte ends uvicorn's own timer

    def shutdown(self) -> None:
        if on_shutdown := self.app_state.get("on_shutdown"):
            on_shutdown()
        self._is_stopping = True
        if self._is_idle():
            # For a second the connection is still answered: its client may have sent a request already.
            self.loop.call_later(1, self._close_if_idle)
        else:
            super().shutdown()  # the last response closes the connection
        # After timeout_graceful_shutdown uvicorn would cancel each request and log it as an error.
        if patience := self.config.timeout_graceful_shutdown:
            self.loop.call_later(patience - 1, self.transport.abort)

    def _expect_head(self) -> None:
        self._head_timer.cancel()
        self._head_timer = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        if self._running is not None:
            self.cycle = self._running  # those behind it have not begun, and never will
        super().connection_lost(exc)


class SocketProtocol(WebSocketsSansIOProtocol):
    """WebSockets that end within five seconds of their close: uvicorn would wait for a client that never reads.

    And a flood of frames ends them: 20 MB of empty pings took 45 s, in which nobody else was served.
    """

    _frames = 0  # since our last ping

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), PART):
            if not self.transport.is_closing():
                super().data_received(data[start : start + PART])

    def handle_events(self) -> None:
        self._frames += len(self.conn.events)
        super().handle_events()
        # More than that many between two of our own pings is a flood.
        if self._frames > 2000 and not self.transport.is_closing():
            self.conn.fail(CloseCode.POLICY_VIOLATION)
            self.handle_parser_exception()

    def send_keepalive_ping(self) -> None:
        self._frames = 0
        super().send_keepalive_ping()

    def shutdown(self) -> None:
        super().shutdown()
        self._abort_later()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_later()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._abort_later()

    def _abort_later(self) -> None:
        self.loop.call_later(5, self.transport.abort)  # for a client that has not read the close frame by then

    async def send(self, message: ASGISendEvent) -> None:
        if self.close_sent:
            raise ClientDisconnected
        if message["type"] == "websocket.close":
            self.writable.set()  # do not wait: the close frame is queued behind the other frames
        await super().send(message)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < 1000:  # fragments of one message
            super().handle_cont(event)
        else:  # empty fragments do not count toward the size limit, but each takes memory
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG)
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        try:
            if self.curr_msg_data_type == "text":
                b"".join(self.frames).decode()
        except UnicodeDecodeError:  # uvicorn would log a part of the message
            self.conn.fail(CloseCode.INVALID_DATA)
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

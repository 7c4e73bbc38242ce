"""Uvicorn's HTTP protocol with two gaps closed: a head without an end, and a client who leaves while it pipelines."""

from collections import deque
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Above the largest head that the application answers for itself (app/middleware.py), with room for the framing.
MAX_UNPARSED = 256 * 1024


class Protocol(HttpToolsProtocol):
    """The parser keeps a line, a header or a trailer until it ends: one that never ends would fill the memory.

    Uvicorn tells only the newest of several pipelined requests that their client has left; the others would write to
    a closed connection.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unparsed = 0  # bytes since the parser last completed a part of a message
        self._unanswered: deque[RequestResponseCycle] = deque()

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > MAX_UNPARSED and not self.transport.is_closing():
            self.send_400_response("The head of the request does not end.")

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # a socket's handshake makes none
            self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

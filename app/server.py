"""Uvicorn's HTTP protocol with a bound: what a client sends before there is a request to refuse must not pile up."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Above the largest head that the application answers for itself (app/middleware.py), with room for the framing.
MAX_UNPARSED = 256 * 1024


class Protocol(HttpToolsProtocol):
    """The parser keeps a line, a header or a trailer until it ends: one that never ends would fill the memory."""

    _unparsed = 0  # bytes since the parser last completed a part of a message

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > MAX_UNPARSED and not self.transport.is_closing():
            self.send_400_response("The head of the request does not end.")

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()

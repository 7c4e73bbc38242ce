"""Clients for the chat's sockets and event streams; every receive has a timeout."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.servers import STARTUP, Muster, Tokens

Json = dict[str, Any]
LARGE = "\x01" * 4096  # 24 KiB in JSON


def slow_connection(muster: Muster) -> socket.socket:
    """A connection that buffers little on the way, as on a slow network.

    By the size of the segments, agreed on when connecting, the system chooses how much it buffers for the sender.
    """
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    slow.settimeout(STARTUP)
    slow.connect(("127.0.0.1", muster.port))
    return slow


def new_room() -> str:
    return f"room-{uuid4().hex[:12]}"


class Socket:
    """A client of `WS /api/chat/ws`; every receive ends after `STARTUP` seconds."""

    def __init__(
        self,
        muster: Muster,
        tokens: Tokens | None = None,
        *,
        room: str = "lobby",
        after: int | str | None = None,
        query: str = "",
        headers: dict[str, str] | None = None,
        small: bool = False,
    ) -> None:
        """`small`: the buffers hold little, so that a client that does not read soon counts as slow."""
        asked = f"room={room}" + ("" if after is None else f"&after={after}") + query
        sent = headers or (tokens.bearer if tokens else {})
        plain = slow_connection(muster) if small else socket.create_connection(("127.0.0.1", muster.port), STARTUP)
        plain.settimeout(None)
        self.plain = plain
        self._opened = connect(
            f"ws://127.0.0.1:{muster.port}/api/chat/ws?{asked}",
            sock=plain,
            additional_headers=sent,
            open_timeout=STARTUP,
            close_timeout=1 if small else STARTUP,
            compression=None,
            max_queue=1 if small else 1000,
            ping_interval=None,
        )

    def __enter__(self) -> Self:
        self.connection: ClientConnection = self._opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def receive(self) -> Json:
        frame: Json = json.loads(self.connection.recv(timeout=STARTUP))
        return frame

    def ready(self) -> int:
        """The room's last number, from the frame that comes first."""
        frame = self.receive()
        assert frame["type"] == "ready", frame
        return int(frame["last"])

    def message(self) -> Json:
        frame = self.receive()
        assert frame.pop("type") == "message", frame
        return frame

    def messages(self, count: int) -> list[Json]:
        return [self.message() for _ in range(count)]

    def problem(self) -> Json:
        """Why the last frame was refused."""
        frame = self.receive()
        assert frame["type"] == "error", frame
        problem: Json = frame["problem"]
        return problem

    def send(self, frame: Any) -> None:
        self.connection.send(json.dumps(frame))

    def say(self, text: str, **more: str) -> None:
        self.send({"text": text, **more})

    def closed(self) -> int:
        """The code that the service closes with; what comes before it is passed over."""
        with suppress(ConnectionClosed):
            while True:
                self.connection.recv(timeout=STARTUP)
        code = self.connection.close_code
        assert code is not None, "the connection was dropped without a word"
        return code


def post(muster: Muster, tokens: Tokens, text: str, room: str = "lobby", **more: str) -> Json:
    answer = muster.client.post("/api/chat/messages", json={"text": text, "room": room, **more}, headers=tokens.bearer)
    assert answer.status_code == 201, answer.text
    message: Json = answer.json()
    return message


def history(muster: Muster, tokens: Tokens, room: str, **query: Any) -> list[Json]:
    answer = muster.client.get("/api/chat/messages", params={"room": room, **query}, headers=tokens.bearer)
    assert answer.status_code == 200, answer.text
    messages: list[Json] = answer.json()
    return messages


@contextmanager
def events(muster: Muster, tokens: Tokens, room: str, last: int | None = None) -> Iterator[Iterator[Json]]:
    """The messages of an event stream, each with the id of its event checked."""
    headers = {**tokens.bearer, **({} if last is None else {"Last-Event-ID": str(last)})}
    with (
        muster.another_client() as client,
        client.stream("GET", "/api/chat/events", params={"room": room}, headers=headers, timeout=STARTUP) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        lines = answer.iter_lines()
        assert next(lines).startswith(": the last number is ")
        yield _parsed(lines)


def _parsed(lines: Iterator[str]) -> Iterator[Json]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            message: Json = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(message["number"]), "message")
            yield message
            fields = {}

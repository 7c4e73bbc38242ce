"""The chat's sockets: who may open one, and what each frame leads to."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.servers import Muster, Tokens
from tests.support.sockets import LARGE, Socket, history, new_room, post

pytestmark = pytest.mark.one_database

EMPTY_PING = b"\x89\x80\0\0\0\0"

# ---- Tokens ----


def test_a_token_comes_in_the_header_or_in_the_first_frame(muster: Muster, reader: Tokens) -> None:
    room = new_room()
    message = post(muster, reader, "Hello", room)
    for headers, first in ((reader.bearer, None), (None, {"token": reader.access})):
        with Socket(muster, room=room, after=0, headers=headers) as socket:
            if first:
                socket.send(first)
            assert socket.ready() == 1
            assert socket.message() == message


@pytest.mark.parametrize("name", ["token", "access_token", "authorization", "bearer"])
def test_a_token_in_the_url_is_ignored(muster: Muster, reader: Tokens, name: str) -> None:
    with Socket(muster, query=f"&{name}={reader.access}") as socket:
        socket.say("Hello")
        assert socket.closed() == 4401
    answer = muster.client.get("/api/chat/events", params={name: reader.access})
    assert answer.status_code == 401
    assert reader.access not in muster.log


@pytest.mark.parametrize(
    "frame",
    [
        *({"token": token} for token in ("made.up.token", "", None, 7, "a" * 9000, "\0", "ä")),
        *({}, [], "token", None, {"text": "Hello"}),
    ],
    ids=lambda frame: ascii(frame)[:30],
)
def test_an_invalid_token_is_closed_with_4401(muster: Muster, frame: Any) -> None:
    with Socket(muster) as socket:
        socket.send(frame)
        assert socket.closed() == 4401


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer made.up.token", "Basic YTpi", "Bearer a b", "nonsense"]
)
def test_a_wrong_header_is_closed_with_4401(muster: Muster, header: str) -> None:
    with Socket(muster, headers={"Authorization": header}) as socket:
        assert socket.closed() == 4401


def test_the_number_of_new_sockets_is_limited(serve: Callable[..., Muster]) -> None:
    muster = serve(LIMIT_DEFAULT="2/minute")
    phones = [muster.new_account().tokens() for _ in range(2)]
    for phone in phones:
        for _ in range(2):
            with Socket(muster, phone) as socket:
                socket.ready()
        with Socket(muster, phone) as socket:
            assert socket.closed() == 1013
    for query, code in (("", 4401), ("&after=x", 1008), ("", 1013)):  # nobody is signed in: counted by network
        with Socket(muster, query=query, headers={"Authorization": "Bearer made.up.token"}) as socket:
            assert socket.closed() == code


@pytest.mark.slow
def test_a_socket_that_never_sends_a_token_is_closed(muster: Muster, reader: Tokens) -> None:
    """Beside one whose token comes as bytes, and one who leaves."""
    with Socket(muster) as silent, Socket(muster) as binary, Socket(muster) as gone:
        gone.plain.close()
        binary.connection.send(json.dumps({"token": reader.access}).encode())
        assert binary.closed() == 4401
        assert silent.closed() == 4401


def test_a_token_without_the_scope_is_closed_with_4403(muster: Muster) -> None:
    tokens = muster.new_account().sign_in(scope="me jobs")
    with Socket(muster, tokens) as socket:
        assert socket.closed() == 4403


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "query",
    [
        {"room": "A"},
        {"room": ""},
        {"room": "a" * 51},
        {"after": "-1"},
        {"after": "a"},
        {"after": "1.5"},
        {"after": 2**63},
    ],
    ids=ascii,
)
def test_a_wrong_room_or_number_is_closed_with_1008(muster: Muster, reader: Tokens, query: dict[str, Any]) -> None:
    with Socket(muster, reader, **query) as socket:
        assert socket.closed() == 1008


# ---- Frames ----

JUNK = [
    *("", "Hello", "{", "[]", "null", "7", '"text"', "[" * 5000, '{"a":' * 3000, '{"text": NaN}', '{"text": 1e999}'),
    *('{"text": "a", "text": "b"}', '{"text": "\\u0000"}', '{"text": "\\ud800"}', '{"text": ""}', '{"text": 7}', "{}"),
    *('{"text": "a", "room": "other"}', '{"text": "a", "client_message_id": "a b"}', '{"token": "a"}', "9" * 9000),
    json.dumps({"text": "a" * 4097}),
    json.dumps({"text": "é" * 2049}),
]


@pytest.mark.both_databases
def test_a_frame_that_is_refused_says_why_and_the_socket_stays_open(muster: Muster, reader: Tokens) -> None:
    room, size = new_room(), muster.log_file.stat().st_size
    with Socket(muster, reader, room=room) as socket:
        socket.ready()
        for junk in JUNK:
            socket.connection.send(junk)
            problem = socket.problem()
            assert (problem["type"], problem["status"]) == ("/problems/invalid", 422), junk[:50]
            assert problem["detail"].endswith("."), problem
        socket.say("one", client_message_id="7f3a")
        first = socket.message()
        socket.say("one", client_message_id="7f3a")
        assert socket.receive() == {"type": "stored", **first}
        socket.say("two", client_message_id="7f3a")
        frame = socket.receive()
        assert (frame["type"], frame["client_message_id"]) == ("error", "7f3a")
        assert frame["problem"]["type"] == "/problems/idempotency-key-reused"
        socket.say(LARGE)
        assert socket.message()["text"] == LARGE
    assert [message["number"] for message in history(muster, reader, room)] == [1, 2]
    assert "ticket" not in muster.log_after(size)


def test_a_frame_that_breaks_the_protocol_closes_the_socket(muster: Muster, reader: Tokens) -> None:
    endings: list[tuple[int, Callable[[Socket], None]]] = [
        (1003, lambda socket: socket.connection.send(b"Hello")),
        (1007, lambda socket: socket.connection.send(b"\xff\xfe", text=True)),
        (1009, lambda socket: socket.connection.send("a" * 40_000)),
        (1009, lambda socket: socket.connection.send(["a"] * 40_000)),
        (1009, lambda socket: socket.connection.send([""] * 2_000)),
        (1008, lambda socket: socket.connection.socket.sendall(EMPTY_PING * 3_000)),
    ]
    size = muster.log_file.stat().st_size
    with Socket(muster, reader, room=new_room()) as other:
        other.ready()
        for code, send in endings:
            with Socket(muster, reader) as socket:
                socket.ready()
                with suppress(ConnectionClosed):
                    send(socket)
                # A client that goes on sending may lose the code to the reset that ends the connection.
                assert socket.closed() in ({code, 1006} if code in {1008, 1009} else {code})
        other.say("Hello")
        assert other.message()["text"] == "Hello"
    assert "Traceback" not in muster.log_after(size)

"""Chat: what is written, what is read, and that all three ways of reading give one sequence."""

from tests.servers import Muster, Tokens
from tests.sockets import Socket, events, history, new_room, post


def test_smoke(muster: Muster, reader: Tokens) -> None:
    room = new_room()
    first = post(muster, reader, "one", room)
    assert first["number"] == 1
    assert history(muster, reader, room) == [first]
    with Socket(muster, reader, room=room, after=0) as ws, events(muster, reader, room, 0) as sse:
        assert ws.ready() == 1
        assert ws.message() == first
        assert next(sse) == first
        second = post(muster, reader, "two", room)
        assert ws.message() == second
        assert next(sse) == second
        ws.say("three")
        third = ws.message()
        assert third["text"] == "three"
        assert next(sse) == third
        assert history(muster, reader, room, after=1) == [second, third]

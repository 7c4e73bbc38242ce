"""No message is lost or doubled for a client that resumes from the last number that it saw: over all three
transports, on one process and on two, with Redis, without it, and while it is killed."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import text
from websockets.asyncio.client import connect

from tests.support.databases import fresh_database
from tests.support.redis_server import RedisServer
from tests.support.servers import STARTUP, Muster, Tokens, wait_for
from tests.support.sockets import Json, Socket, events, history, new_room, post

ONE = {"PUBLIC_URL": "http://localhost"}  # for clients, instances that share it are one service

# How a client of each transport reads a few messages after a number, and disconnects.
Way = Callable[[Muster, Tokens, str, int, int], list[Json]]


def by_socket(muster: Muster, tokens: Tokens, room: str, after: int, few: int) -> list[Json]:
    with Socket(muster, tokens, room=room, after=after) as socket:
        socket.ready()
        return socket.messages(few)


def by_stream(muster: Muster, tokens: Tokens, room: str, after: int, few: int) -> list[Json]:
    with events(muster, tokens, room, after) as stream:
        return [next(stream) for _ in range(few)]


def by_poll(muster: Muster, tokens: Tokens, room: str, after: int, few: int) -> list[Json]:
    return history(muster, tokens, room, after=after, limit=few, wait=25)


WAYS: list[Way] = [by_socket, by_stream, by_poll]


@contextmanager
def writing(room: str, *writers: tuple[Muster, Tokens]) -> Iterator[Callable[[], None]]:
    """Each writer sends messages in a thread of its own, until the function that this yields is called."""
    enough = Event()

    def write(muster: Muster, tokens: Tokens) -> None:
        for number in count():
            if enough.is_set():
                break
            post(muster, tokens, str(number), room, client_message_id=f"{room}-{number}")

    threads = [Thread(target=write, args=writer) for writer in writers]
    for thread in threads:
        thread.start()

    def stop() -> None:
        enough.set()
        for thread in threads:
            thread.join()

    try:
        yield stop
    finally:
        stop()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=["socket", "stream", "poll"])
def test_a_client_that_reconnects_under_load_receives_each_message_once(muster: Muster, way: Way) -> None:
    room, reader = new_room(), muster.new_account().tokens()
    writers = [(muster, muster.new_account().tokens()) for _ in range(2)]
    seen: list[Json] = []
    with writing(room, *writers) as stop:
        for _ in range(6):
            seen += way(muster, reader, room, seen[-1]["number"] if seen else 0, 4)
        stop()
    stored = history(muster, reader, room, after=0, limit=200)
    assert seen == stored[: len(seen)]
    assert len(seen) >= 6


def insert_copies(muster: Muster, room: str, first: Json, last: int) -> None:
    """Messages that another process stored all at once, up to the number `last`."""
    copies = [{"number": number, "id": -1_000 * first["id"] - number} for number in range(2, last + 1)]
    columns = "author_id, room, text, created_at"
    # Our own column names.
    statement = f"INSERT INTO chat_message (id, number, {columns}) SELECT :id, :number, {columns} FROM chat_message"  # noqa: S608
    with muster.engine.begin() as connection:
        condition = " WHERE room = :room AND number = 1"
        connection.execute(text(statement + condition), [{**copy, "room": room} for copy in copies])
        update = text("UPDATE chat_room SET last_number = :last WHERE name = :room")
        connection.execute(update, {"room": room, "last": last})


def test_a_long_backlog_is_delivered_before_new_messages(muster: Muster, reader: Tokens) -> None:
    room = new_room()
    insert_copies(muster, room, post(muster, reader, "first", room), 701)
    with Socket(muster, reader, room=room, after=0) as socket, events(muster, reader, room, 350) as stream:
        assert socket.ready() == 701
        last = post(muster, reader, "last", room)
        assert [message["number"] for message in socket.messages(702)] == list(range(1, 703))
        assert [next(stream)["number"] for _ in range(352)] == list(range(351, 703))
        assert last["number"] == 702


def test_a_prompt_reader_is_not_too_slow_for_many_messages_of_another_process(muster: Muster, reader: Tokens) -> None:
    room = new_room()
    with Socket(muster, reader, room=room) as socket, events(muster, reader, room) as stream:
        assert socket.ready() == 0
        insert_copies(muster, room, post(muster, reader, "first", room), 701)
        assert [message["number"] for message in socket.messages(701)] == list(range(1, 702))
        assert [next(stream)["number"] for _ in range(701)] == list(range(1, 702))


# ---- Two processes ----


@pytest.fixture(scope="module")
def over_redis(kind: str, folder: Path, postgres: str, redis: RedisServer) -> Iterator[tuple[Muster, Muster]]:
    """Two instances on one database that hear of each other over Redis."""
    settings = {**ONE, "REDIS_URL": redis.url}
    with (
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, **settings) as here,
        Muster(url, folder, **settings) as there,
    ):
        yield here, there


@pytest.fixture(params=["redis", "database"])
def two(request: pytest.FixtureRequest) -> tuple[Muster, Muster]:
    """Two instances on one database that hear of each other over Redis, or by polling the database."""
    if request.param == "redis":
        pair: tuple[Muster, Muster] = request.getfixturevalue("over_redis")
        return pair
    serve = request.getfixturevalue("serve")
    return serve(**ONE), serve(**ONE)


@pytest.mark.slow
@pytest.mark.usefixtures("kind")  # by way of `two`
def test_messages_of_one_process_reach_the_subscribers_of_another(two: tuple[Muster, Muster]) -> None:
    here, there = two
    room, reader = new_room(), here.new_account().tokens()
    with (
        writing(room, *[(muster, muster.new_account().tokens()) for muster in two]) as stop,
        Socket(there, reader, room=room, after=0) as socket,
        events(here, reader, room, 0) as stream,
    ):
        socket.ready()
        seen = socket.messages(20)
        assert [next(stream) for _ in range(20)] == seen
        for muster, way in zip([here, there] * 3, WAYS * 2, strict=True):
            seen += way(muster, reader, room, seen[-1]["number"], 3)
        stop()
        stored = history(here, reader, room, after=0, limit=200)
        assert seen == stored[: len(seen)]
        assert socket.messages(len(stored) - 20) == stored[20:]
        assert [next(stream) for _ in range(len(stored) - 20)] == stored[20:]


def test_a_notification_over_redis_is_delivered_before_the_next_poll(
    over_redis: tuple[Muster, Muster], redis: RedisServer
) -> None:
    muster, room = over_redis[0], new_room()
    tokens = muster.new_account().tokens()
    heard = redis.client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis types a part of itself
    heard.subscribe("muster/chat")
    with heard, Socket(muster, tokens, room=room) as socket:
        socket.ready()

        def next_heard() -> Any:
            notification = heard.get_message(timeout=1)
            return notification and json.loads(notification["data"])

        def reconnected() -> Any:  # the first message after a restart of Redis is lost, and found by polling
            post(muster, tokens, "Is anybody there?", new_room())
            return next_heard()

        wait_for(reconnected, what="a connection to Redis")
        first = post(muster, tokens, "Hello", room)
        assert socket.message() == first
        wait_for(lambda: next_heard() == first, what="the message")
        for nonsense in ("", "{", "[]", "7", '{"room": 7}', json.dumps({"room": room, "number": "a"})):
            redis.client.publish("muster/chat", nonsense)
        not_stored = {**first, "number": 2, "text": "from another process"}
        for _ in range(2):
            redis.client.publish("muster/chat", json.dumps(not_stored))
        assert socket.message() == not_stored
        redis.client.publish("muster/chat", json.dumps({**first, "number": 3, "text": "once"}))
        assert socket.message()["text"] == "once"


def test_a_prompt_reader_is_not_too_slow_for_many_messages_over_redis(
    over_redis: tuple[Muster, Muster], redis: RedisServer
) -> None:
    muster, room = over_redis[0], new_room()
    tokens = muster.new_account().tokens()
    with Socket(muster, tokens, room=room) as socket, events(muster, tokens, room) as stream:
        assert socket.ready() == 0
        first = post(muster, tokens, "Hello", room)
        with redis.client.pipeline() as pipeline:
            for number in range(2, 502):
                pipeline.publish("muster/chat", json.dumps({**first, "number": number}))
            pipeline.execute()
        assert [message["number"] for message in socket.messages(501)] == list(range(1, 502))
        assert [next(stream)["number"] for _ in range(501)] == list(range(1, 502))


def test_no_message_is_lost_when_redis_is_killed_and_comes_back(
    over_redis: tuple[Muster, Muster], redis: RedisServer
) -> None:
    here, there = over_redis
    room, tokens = new_room(), here.new_account().tokens()
    with Socket(here, tokens, room=room) as near, Socket(there, tokens, room=room) as far:
        sockets = [near, far]
        assert [socket.ready() for socket in sockets] == [0, 0]

        def pass_on(*said: str) -> None:
            sent = [post(muster, tokens, text, room) for text in said for muster in (here, there)]
            assert [socket.messages(len(sent)) for socket in sockets] == [sent, sent]

        pass_on("with Redis")
        with redis.stopped():
            pass_on("without", "it")
        pass_on("it is", "back")


# ---- Many sockets ----


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.one_database
def test_many_sockets_receive_each_message_once(
    muster: Muster, over_redis: tuple[Muster, Muster], processes: int
) -> None:
    instances = list(over_redis) if processes > 1 else [muster]
    people, room = [instances[0].new_account().tokens() for _ in range(4)], new_room()
    seen = asyncio.run(_by_many(instances, people, room, sockets=12, messages=8))
    stored = history(instances[0], people[0], room)
    assert len(stored) == 8
    assert all(each == stored for each in seen)
    assert len(seen) == 12


async def _by_many(
    instances: list[Muster], people: list[Tokens], room: str, *, sockets: int, messages: int
) -> list[Any]:
    async def receive(socket: Any) -> Json:
        async with asyncio.timeout(STARTUP):
            frame: Json = json.loads(await socket.recv())
        kind = frame.pop("type")
        assert kind in {"ready", "message"}, frame
        return frame

    async with AsyncExitStack() as stack:
        opened = []
        for number in range(sockets):
            url = f"ws://127.0.0.1:{instances[number % len(instances)].port}/api/chat/ws?room={room}"
            bearer = people[number % len(people)].bearer
            opened.append(await stack.enter_async_context(connect(url, additional_headers=bearer)))
            await receive(opened[-1])
        for number in range(messages):
            await opened[number].send(json.dumps({"text": str(number)}))
        return [[await receive(socket) for _ in range(messages)] for socket in opened]

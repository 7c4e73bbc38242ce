"""Chat over HTTP: sending messages, reading them, and what is refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from tests.support.assertions import assert_limited, assert_problem
from tests.support.concurrency import at_once
from tests.support.metrics import number, scrape
from tests.support.servers import PASSWORD, Muster, Tokens, wait_for
from tests.support.sockets import Socket, events, history, new_room, post

URL = "/api/chat/messages"


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [message["number"] for message in messages]


def ask(muster: Muster, tokens: Tokens, **query: Any) -> httpx.Response:
    return muster.client.get(URL, params=query, headers=tokens.bearer)


def send(muster: Muster, tokens: Tokens, **body: Any) -> httpx.Response:
    return muster.client.post(URL, json=body, headers=tokens.bearer)


# ---- Written ----


def test_a_message_is_stored_as_typed_and_everybody_reads_it(muster: Muster, reader: Tokens) -> None:
    author, room = muster.new_account(name="Ada").tokens(), new_room()
    text = "  Zwei\n\tZeilen \u202e é e\u0301 \x01 👩‍🚀 \n"
    message = post(muster, author, text, room)
    assert message.pop("created_at").endswith("Z")
    assert message.pop("id") > 0
    me = (muster.me(author).json()["id"], "Ada")
    assert (message.pop("author_id"), message.pop("author")) == me
    assert message == {"room": room, "number": 1, "text": text.strip(), "client_message_id": None}
    assert [each["text"] for each in history(muster, reader, room)] == [text.strip()]


def test_the_default_room_is_the_lobby(muster: Muster, reader: Tokens) -> None:
    message = send(muster, reader, text="Hello").json()
    assert message["room"] == "lobby"
    assert message in ask(muster, reader).json()


LONGEST = {
    "a byte each": "a" * 4096,
    "two each": "é" * 2048,
    "four each": "👩" * 1024,
    "a space before": " " + "a" * 4096,
}


@pytest.mark.parametrize("text", LONGEST.values(), ids=LONGEST)
def test_a_text_has_up_to_4_kib_of_utf_8(muster: Muster, reader: Tokens, text: str) -> None:
    room = new_room()
    assert post(muster, reader, text, room)["text"] == text.strip()
    assert_problem(send(muster, reader, text=text + "a", room=room), 422, "invalid")


@pytest.mark.one_database
@pytest.mark.parametrize(
    "body",
    [
        {},
        *({"text": text} for text in ("", " \n\t ", "\0", "a\0b", None, 7, ["a"], {"a": "b"}, "a" * 5000)),
        *(
            {"text": "a", "room": room}
            for room in ("", "Lobby", "a b", "-a", "a--b", "a/b", "ä", "a" * 51, None, "a\n")
        ),
        *({"text": "a", "client_message_id": key} for key in ("", "a b", "ä", "a" * 65, "a\n", 7)),
        {"text": "a", "number": 7},
        {"text": "a", "author_id": "01935b0e-7c1a-7000-8000-0123456789ab"},
    ],
    ids=ascii,
)
def test_an_invalid_message_is_refused(muster: Muster, reader: Tokens, body: dict[str, Any]) -> None:
    assert_problem(send(muster, reader, **body), 422, "invalid")


def test_a_message_that_is_sent_again_is_stored_once(muster: Muster, reader: Tokens) -> None:
    room, other = new_room(), muster.new_account().tokens()
    first = post(muster, reader, "Hello", room, client_message_id="7f3a")
    assert post(muster, reader, " Hello ", room, client_message_id="7f3a") == first
    assert_problem(send(muster, reader, text="Bye", room=room, client_message_id="7f3a"), 422, "idempotency-key-reused")
    elsewhere = send(muster, reader, text="Hello", room=new_room(), client_message_id="7f3a")
    assert_problem(elsewhere, 422, "idempotency-key-reused")
    theirs = post(muster, other, "Hello", room, client_message_id="7f3a")
    assert theirs["id"] != first["id"], "an id is its sender's own"
    assert history(muster, reader, room) == [first, theirs]


def test_twenty_concurrent_repeats_of_a_message_store_one(muster: Muster, reader: Tokens) -> None:
    room, key = new_room(), new_room()
    with Socket(muster, reader, room=room) as follower:
        follower.ready()
        answers = at_once(*[partial(post, muster, reader, "Hello", room, client_message_id=key)] * 20)
        assert [answer == answers[0] for answer in answers] == [True] * 20
        last = post(muster, reader, "Bye", room)
        assert follower.messages(2) == [answers[0], last]
    assert history(muster, reader, room) == [answers[0], last]


@pytest.mark.slow
def test_concurrent_messages_have_the_same_order_for_everybody(muster: Muster) -> None:
    room, people = new_room(), [muster.new_account().tokens() for _ in range(4)]
    with Socket(muster, people[0], room=room) as early, events(muster, people[1], room, 0) as stream:
        early.ready()
        sent = at_once(*[partial(post, muster, person, "Hello", room) for person in people * 5])
        seen = early.messages(20)
        assert numbers(seen) == sorted(numbers(sent)) == list(range(1, 21))
        assert seen == [next(stream) for _ in range(20)] == history(muster, people[2], room)


def test_the_message_limit_counts_http_and_sockets_together(serve: Callable[..., Muster]) -> None:
    muster = serve(LIMIT_CHAT="3/minute")
    account, room = muster.new_account(), new_room()
    phone, tablet, other = account.tokens(), account.tokens(), muster.new_account().tokens()
    post(muster, phone, "one", room)
    with Socket(muster, tablet, room=room) as socket:
        socket.ready()
        socket.say("two")
        assert socket.message()["text"] == "two"
        post(muster, tablet, "three", room)
        assert socket.message()["text"] == "three"
        assert_limited(send(muster, phone, text="four", room=room), "message", "q=3;w=60")
        socket.connection.send("not JSON")  # which counts too
        assert socket.problem()["status"] == 429
        socket.say("five", client_message_id="5")
        refusal = socket.receive()
        assert (refusal["type"], refusal["client_message_id"]) == ("error", "5")
        problem = refusal["problem"]
        assert (problem["type"], problem["status"]) == ("/problems/too-many-requests", 429)
        assert 0 < problem["retry_after"] <= 60
        post(muster, other, "six", room)
        assert socket.message()["text"] == "six", "the socket stays open"


def test_deleting_an_account_deletes_its_messages(muster: Muster, reader: Tokens) -> None:
    account, room = muster.new_account(), new_room()
    tokens = account.tokens()
    kept = [post(muster, reader, "one", room)]
    post(muster, tokens, "two", room)
    kept.append(post(muster, reader, "three", room))
    post(muster, tokens, "four", room)
    body = {"current_password": PASSWORD}
    assert muster.client.request("DELETE", "/api/users/me", json=body, headers=tokens.bearer).status_code == 204
    assert history(muster, reader, room) == kept
    with Socket(muster, reader, room=room, after=1) as socket:
        assert socket.ready() == 4
        kept.append(post(muster, reader, "five", room))
        assert socket.messages(2) == kept[1:]
    assert numbers(history(muster, reader, room, after=1)) == [3, 5]


# ---- Read ----


def test_history_is_read_forward_and_backward_by_its_links(muster: Muster, reader: Tokens) -> None:
    room = new_room()
    sent = [post(muster, reader, str(number), room) for number in range(1, 8)]
    assert history(muster, reader, room, limit=3) == sent[4:]
    assert history(muster, reader, room, limit=3, after=2) == sent[2:5]
    assert history(muster, reader, room, limit=3, before=5) == sent[1:4]
    assert history(muster, reader, room, after=7) == history(muster, reader, room, before=1) == []
    forward, between = ({"after": 0}, [[1, 2, 3], [4, 5, 6], [7]]), ({"after": 1, "before": 6}, [[2, 3, 4], [5]])
    for query, pages in (({}, [[5, 6, 7], [2, 3, 4], [1]]), forward, between):
        answer, seen = ask(muster, reader, room=room, limit=3, **query), []
        while True:
            seen.append(numbers(answer.json()))
            if "next" not in answer.links:
                break
            answer = muster.client.get(answer.links["next"]["url"], headers=reader.bearer)
        assert seen == pages


def test_rooms_are_listed_by_their_latest_message(muster: Muster, reader: Tokens) -> None:
    names = [new_room() for _ in range(3)]
    for name in (*names, names[0]):
        last = post(muster, reader, "Hello", name)
    answer = muster.client.get("/api/chat/rooms?limit=1", headers=reader.bearer)
    seen: list[dict[str, Any]] = answer.json()
    while len(seen) < 3:
        answer = muster.client.get(answer.links["next"]["url"], headers=reader.bearer)
        seen += answer.json()
    assert [room["name"] for room in seen if room["name"] in names] == [names[0], names[2], names[1]]
    first = next(room for room in seen if room["name"] == names[0])
    assert first == {"name": names[0], "last_number": 2, "last_message_at": last["created_at"]}
    assert muster.client.get("/api/chat/rooms").status_code == 401


@pytest.mark.one_database
@pytest.mark.parametrize(
    "query",
    [
        *({name: value} for name in ("after", "before") for value in ("-1", "a", "1.5", str(2**63), "")),
        *({"limit": value} for value in ("0", "201", "a")),
        *({"wait": value} for value in ("-1", "26", "nan", "inf", "a")),
        *({"room": value} for value in ("", "A", "a b", "a\0", "a" * 51)),
    ],
    ids=ascii,
)
def test_an_invalid_history_query_is_rejected(muster: Muster, reader: Tokens, query: dict[str, Any]) -> None:
    assert_problem(ask(muster, reader, **query), 422, "invalid")
    if not {"before", "limit", "wait"} & query.keys():
        answer = muster.client.get("/api/chat/events", params=query, headers=reader.bearer)
        assert_problem(answer, 422, "invalid")


def test_a_long_poll_ends_with_the_next_message_or_empty(muster: Muster, reader: Tokens) -> None:
    room = new_room()
    assert history(muster, reader, room, wait=0.1) == []
    with ThreadPoolExecutor(3) as pool:
        polls = [pool.submit(history, muster, reader, room, wait=25, **query) for query in ({}, {"after": 0})]
        ahead = pool.submit(history, muster, reader, room, wait=25, after=1)
        followed(muster, reader, room)
        first = post(muster, reader, "one", room)
        assert [poll.result() for poll in polls] == [[first], [first]]
        assert not ahead.done()
        second = post(muster, reader, "two", room)
        assert ahead.result() == [second]
    assert history(muster, reader, room, wait=25) == [first, second], "a message that exists is not waited for"
    assert history(muster, reader, room, wait=25, before=1) == [], "no earlier message can ever arrive"


def followed(muster: Muster, tokens: Tokens, room: str) -> None:
    """Return once the long polls sent before this call have arrived."""
    with Socket(muster, tokens, room=room) as socket:
        socket.ready()


@pytest.mark.one_database
def test_many_long_polls_do_not_delay_other_requests(serve: Callable[..., Muster]) -> None:
    muster = serve(DB_SLOTS="1", SLOT_TIMEOUT="5")
    tokens, other = (muster.new_account().tokens() for _ in range(2))
    room = new_room()
    muster.me(tokens)
    with ThreadPoolExecutor(60) as pool:  # more than there are threads in the service
        polls = [
            pool.submit(history, muster, who, room, wait=25, after=0) for who in (tokens, other) for _ in range(30)
        ]
        for _ in range(30):
            assert muster.me(tokens).status_code == 200
            assert not any(poll.done() for poll in polls)
        message = post(muster, tokens, "Hello", room)
        assert [poll.result() for poll in polls] == [[message]] * 60


@pytest.mark.one_database
def test_an_abandoned_event_stream_is_unsubscribed(muster: Muster, reader: Tokens) -> None:
    room, size = new_room(), muster.log_file.stat().st_size
    wait_for(lambda: subscribers(muster) == 0, what="the end of those of other tests")
    for _ in range(3):
        with events(muster, reader, room, 0) as stream:
            message = post(muster, reader, "Hello", room)
            wait_for(lambda: next(stream) == message, what="the message")  # noqa: B023  # called at once
            assert subscribers(muster) > 0
    wait_for(lambda: subscribers(muster) == 0, what="the end of the streams")
    assert "Traceback" not in muster.log_after(size)


def subscribers(muster: Muster) -> float:
    return number(scrape(muster), "muster_chat_subscribers")

"""The ends of a chat connection: with its token, with its session, for reading too slowly, or with the service."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from os import kill
from pathlib import Path
from socket import SHUT_RDWR
from time import monotonic
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.assertions import assert_problem
from tests.support.metrics import number, scrape
from tests.support.servers import PASSWORD, Muster, Tokens, wait_for
from tests.support.sockets import LARGE, Json, Socket, events, history, new_room

pytestmark = [pytest.mark.slow, pytest.mark.one_database]


def test_an_expired_token_ends_its_sockets_streams_and_long_polls(serve: Callable[..., Muster]) -> None:
    muster = serve(ACCESS_TOKEN_TTL="4")
    account, room = muster.new_account(), new_room()
    tokens = account.tokens()
    with (
        ThreadPoolExecutor(1) as pool,
        Socket(muster, tokens, room=room) as socket,
        events(muster, tokens, room) as stream,
    ):
        url = f"/api/chat/messages?room={room}&wait=25"
        poll = pool.submit(lambda: muster.client.get(url, headers=tokens.bearer))
        assert socket.ready() == 0
        assert socket.closed() == 4401
        assert list(stream) == []
        answer = poll.result()
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/invalid-token")
    with Socket(muster, tokens) as socket:
        assert socket.closed() == 4401
    with Socket(muster, account.tokens(), room=room, after=0) as socket:
        assert socket.ready() == 0


@pytest.mark.both_databases
def test_sockets_of_a_person_signed_out_or_without_the_scope_close_within_30_seconds(
    serve: Callable[..., Muster],
) -> None:
    """All cases are tested at once, since each would wait for the same check of the sessions. The instance has just
    been started, so nearly all the time between two checks is still to pass."""
    muster = serve()
    admin = muster.admin().tokens()
    accounts = [muster.new_account() for _ in range(5)]
    pairs = [account.tokens() for account in accounts]
    ids = [muster.me(tokens).json()["id"] for tokens in pairs]
    room, bystander = new_room(), muster.new_account().tokens()

    def patch(user_id: str, **changes: Any) -> None:
        answer = muster.client.patch(f"/api/users/{user_id}", json=changes, headers=admin.bearer)
        assert answer.status_code == 200, answer.text

    with (
        Socket(muster, pairs[0], room=room) as revoked,
        Socket(muster, pairs[1], room=room) as changed,
        Socket(muster, pairs[2], room=room) as disabled,
        Socket(muster, pairs[3], room=room) as demoted,
        events(muster, pairs[4], room) as stream,
        Socket(muster, bystander, room=room) as stays,
    ):
        for socket in (revoked, changed, disabled, demoted, stays):
            socket.ready()
        began = monotonic()
        assert muster.client.post("/api/auth/revoke", data={"token": pairs[0].refresh}).status_code == 200
        assert muster.client.post("/api/auth/revoke", data={"token": pairs[4].refresh}).status_code == 200
        body = {"current_password": PASSWORD, "new_password": "copper-lantern-meadow"}
        answer = muster.client.put("/api/users/me/password", json=body, headers=pairs[1].bearer)
        assert answer.status_code == 200
        patch(ids[2], is_active=False)
        muster.sql("UPDATE refresh_token SET scope = 'me' WHERE user_id = :id", id=_stored(muster, ids[3]))
        assert [socket.closed() for socket in (revoked, changed, disabled, demoted)] == [4401, 4401, 4401, 4403]
        assert list(stream) == []
        assert monotonic() - began < 30
        stays.say("Hello")
        assert stays.message()["text"] == "Hello"


def _stored(muster: Muster, user_id: str) -> str:
    return user_id.replace("-", "") if muster.on_sqlite else user_id


def slow_subscribers_ended(muster: Muster) -> float:
    """The number of connections ended for reading too slowly."""
    return number(scrape(muster), "muster_chat_subscribers_ended_total", ending="slow")


def test_slow_subscribers_are_disconnected_can_resume_and_delay_nobody(muster: Muster, reader: Tokens) -> None:
    room = new_room()
    with (
        Socket(muster, reader, room=room, small=True) as slow,
        Socket(muster, reader, room=room, small=True) as dead,
        Socket(muster, reader, room=room) as other,
    ):
        assert slow.ready() == dead.ready() == other.ready() == 0
        assert muster.process is not None
        pid, dead_one = muster.process.pid, dead.plain.getsockname()
        (number,) = [each.fd for each in psutil.Process(pid).net_connections() if each.raddr == dead_one]
        descriptor = Path(f"/proc/{pid}/fd/{number}")
        opened = descriptor.readlink()
        sent = flood(muster, other, slow=2)
        # Now: the server waits some seconds for its closing to be answered, then drops what is still to be read.
        seen: list[int] = []
        with suppress(ConnectionClosed):
            while True:
                seen.append(slow.message()["number"])
        assert slow.connection.close_code == 1013
        assert 0 < len(seen) < len(sent)
        wait_for(
            lambda: not descriptor.is_symlink() or descriptor.readlink() != opened,
            what="the end of the dead connection",
        )
    assert seen == [message["number"] for message in sent[: len(seen)]]
    with Socket(muster, reader, room=room, after=seen[-1]) as again:
        assert again.ready() == len(sent)
        assert again.messages(len(sent) - len(seen)) == sent[len(seen) :]


def flood(muster: Muster, other: Socket, *, slow: int) -> list[Json]:
    """The messages sent until `slow` slow readers were disconnected: more than a queue and all buffers on the way hold.

    Each message reaches the other reader at once.
    """
    sent: list[Json] = []
    before = slow_subscribers_ended(muster)
    while slow_subscribers_ended(muster) < before + slow:
        assert len(sent) < 200
        for _ in range(10):
            other.say(LARGE)
            sent.append(other.message())
    return sent


def test_subscribers_are_limited_by_person_by_network_and_in_total(database_url: str, folder: Path) -> None:
    few = "tests.support.apps.few_subscribers:app"
    with Muster(database_url, folder, app=few, TRUSTED_PROXIES="127.0.0.1") as muster:
        phone, other = (muster.new_account().tokens() for _ in range(2))
        elsewhere = other.bearer | {"X-Forwarded-For": "192.0.2.7"}
        with ExitStack() as stack:

            def follow(tokens: Tokens, headers: dict[str, str] | None = None) -> Socket:
                return stack.enter_context(Socket(muster, tokens, headers=headers))

            assert [follow(phone).ready() for _ in range(2)] == [0, 0]
            assert follow(phone).closed() == 1013
            refused = muster.client.get("/api/chat/events", headers=phone.bearer)
            assert_problem(refused, 429, "too-many-requests")
            assert refused.headers["retry-after"] == "60"
            assert history(muster, phone, "lobby") == [], "a poll that does not wait takes no place"
            assert follow(other).ready() == 0
            assert follow(other).closed() == 1013
            assert_problem(muster.client.get("/api/chat/events", headers=other.bearer), 429, "too-many-requests")
            assert follow(other, elsewhere).ready() == 0
            third = muster.new_account().tokens().bearer | {"X-Forwarded-For": "192.0.2.8"}
            for path in ("/api/chat/events", "/api/chat/messages?wait=25"):
                full = muster.client.get(path, headers=third)
                assert_problem(full, 503, "unavailable")
                assert full.headers["retry-after"] == "10"
        url = "/api/chat/messages?wait=0.1"
        wait_for(lambda: muster.client.get(url, headers=phone.bearer).status_code == 200, what="a free place")


@pytest.mark.both_databases
def test_a_client_that_disconnects_does_not_affect_the_others(muster: Muster, reader: Tokens) -> None:
    room, size = new_room(), muster.log_file.stat().st_size
    with Socket(muster, reader, room=room) as other:
        other.ready()
        for _ in range(5):
            with Socket(muster, reader, room=room) as gone:
                gone.ready()
                gone.plain.shutdown(SHUT_RDWR)
            other.say("Hello")
            assert other.message()["text"] == "Hello"
    assert "Traceback" not in muster.log_after(size)


def test_disconnecting_before_the_responses_arrive_logs_no_error(muster: Muster, reader: Tokens) -> None:
    """Messages and responses to refused frames are in flight together: whichever is second meets a closed socket."""
    room, size = new_room(), muster.log_file.stat().st_size
    with Socket(muster, reader, room=room) as other:
        other.ready()
        for number in range(20):
            with Socket(muster, reader, room=room) as gone:
                gone.ready()
                for _ in range(3):
                    gone.say(str(number))
                    gone.send({"no": "text"})
        other.say("the last one")
        while other.message()["text"] != "the last one":
            pass
    assert "Traceback" not in muster.log_after(size)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_subscriber_is_notified_when_the_service_stops(serve: Callable[..., Muster], workers: str) -> None:
    muster = serve(WORKERS=workers)
    tokens, room = muster.new_account().tokens(), new_room()
    with (
        ThreadPoolExecutor(1) as pool,
        Socket(muster, tokens, room=room) as socket,
        events(muster, tokens, room) as stream,
    ):
        socket.ready()
        poll = pool.submit(history, muster, tokens, room, wait=25)
        wait_for(lambda: number(scrape(muster), "muster_chat_subscribers") == 3, what="all three subscribers")
        process = muster.process
        assert process is not None
        kill(process.pid, signal.SIGTERM)
        assert poll.result() == []
        assert list(stream) == []
        assert socket.closed() == 1012
        wait_for(lambda: process.poll() is not None, what="the end", seconds=8)
        assert process.poll() in {0, -15}
    assert "Traceback" not in muster.log
    assert "error" not in muster.log.lower()

"""Request bodies that are refused before they are read, that arrive too slowly, or too many at once."""

import json
import select
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic

import pytest

from app.http.bodies import MAX_ARRIVING
from tests.support.connections import raw_connection
from tests.support.hostile import FORM, JSON, PAGE, assert_refused, head, raw
from tests.support.servers import PASSWORD, STARTUP, Muster, wait_for

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

MB = 1_000_000
REGISTER = "/api/auth/register"


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize(
    ("target", "content_type", "size", "status"),
    [
        (f"POST {REGISTER}", JSON, 8 * MB, 413),
        ("POST /api/auth/token", FORM, 8 * MB, 413),
        ("POST /api/operations/import", "text/csv", MB, 401),
        ("POST /api/nowhere", JSON, MB, 404),
        (f"PUT {REGISTER}", JSON, MB, 405),
        (f"POST {PAGE}", FORM, MB, 404),
        (f"POST {PAGE}", FORM, 8 * MB, 413),
    ],
)
def test_a_refusal_over_an_unread_body_reaches_a_client_that_sends_all_of_it_first(
    muster: Muster, target: str, content_type: str, size: int, status: int, connection: str
) -> None:
    headers = {"Content-Type": content_type, "Content-Length": str(size), "Connection": connection}
    assert_refused(raw(muster, head(*target.split(), **headers) + b"a" * size), status)


def test_a_429_over_an_unread_body_reaches_the_client_too(serve: Callable[..., Muster]) -> None:
    muster = serve(LIMIT_DEFAULT="1/minute")
    request = head("POST", "/api/operations/import", **{"Content-Length": str(MB), "Connection": "close"})
    statuses = [raw(muster, request + b"a" * MB).status_code for _ in range(3)]
    assert statuses == [401, 429, 429]


def test_a_network_that_has_used_up_its_window_is_refused_before_its_body_is_read(serve: Callable[..., Muster]) -> None:
    """The window of refused requests, or the route's own."""
    muster = serve(LIMIT_DEFAULT="2/minute", LIMIT_REGISTER="1/hour")
    new = {"email": "ada@example.com", "password": PASSWORD}
    for path, body, statuses in (
        ("/api/operations", {}, [401, 401]),
        ("/api/auth/reset-password", {}, [422, 422]),
        (REGISTER, new, [201]),
    ):
        unsent = head("POST", path, **{"Content-Type": JSON, "Content-Length": str(MB)})
        assert [muster.client.post(path, json=body).status_code for _ in statuses] == statuses
        assert_refused(raw(muster, unsent), 429)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({f"name-{number}": 1 for number in range(60_000)}).encode(),
        b"[" + b"1," * 400_000 + b"1]",
        b'{"email": [' + b'"",' * 200_000 + b'""]}',
        b'{"email": "' + b'\\"' * 300_000 + b'"' + b',"a":1' * 600,
    ],
    ids=["names", "numbers", "texts", "quotes"],
)
def test_a_body_of_many_members_is_refused_as_a_whole(muster: Muster, content: bytes) -> None:
    answer = muster.client.post(REGISTER, content=content, headers={"Content-Type": JSON})
    assert_refused(answer, 422)
    assert [error["msg"] for error in answer.json()["errors"]] == ["This is not JSON: it has more than 500 members."]


def test_a_response_lists_20_mistakes_and_commas_in_text_are_not_members(muster: Muster) -> None:
    many = muster.client.post(REGISTER, json={f"name-{number}": 1 for number in range(400)})
    assert_refused(many, 422)
    assert len(many.json()["errors"]) == 20
    tokens = muster.new_account().sign_in()
    body = {"text": ',"' * 1500, "room": "commas"}
    assert muster.client.post("/api/chat/messages", json=body, headers=tokens.bearer).status_code == 201


def test_an_unread_body_is_discarded_only_for_some_seconds(muster: Muster) -> None:
    began, received = monotonic(), b""
    with raw_connection(muster, head("GET", "/health/live", **{"Content-Length": "900000"})) as connection:
        while part := connection.recv(MB):
            received += part
    assert 4.9 < monotonic() - began < 35  # its timer counts from the beginning of a round of the event loop
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("path", [REGISTER, "/api/auth/token", "/api/operations/import"])
def test_a_stalled_body_is_a_408(serve: Callable[..., Muster], path: str) -> None:
    muster = serve(BODY_TIMEOUT="0.2")
    bearer = muster.new_account().tokens().bearer  # without a body, which could stall too
    for framing, start in ({"Content-Length": "900000"}, b"a"), ({"Transfer-Encoding": "chunked"}, b"1\r\na\r\n"):
        content_type = FORM if path.endswith("token") else JSON
        answer = raw(muster, head("POST", path, **{"Content-Type": content_type}, **bearer, **framing) + start)
        assert_refused(answer, 408)
        assert ("temporarily_unavailable" in answer.text) == path.endswith("token")


def test_the_number_of_bodies_that_one_network_sends_at_once_is_limited(muster: Muster) -> None:
    unfinished = head("POST", REGISTER, **{"Content-Type": JSON, "Content-Length": str(MB)}) + b" " * 1000
    whole = head("POST", REGISTER, **{"Content-Type": JSON, "Content-Length": "2"}) + b"{}"
    with ExitStack() as stack:
        sending = [stack.enter_context(raw_connection(muster, unfinished)) for _ in range(MAX_ARRIVING + 1)]
        [refused], _, _ = select.select(sending, [], [], STARTUP)
        assert refused.recv(1000).startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert_refused(raw(muster, whole), 422)
    finished = unfinished + b" " * (MB - 1000)
    wait_for(lambda: raw(muster, finished).status_code == 422, what="the end of the others")

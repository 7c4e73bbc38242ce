"""A browser's socket: its cookie is the token, and its Origin a page of ours."""

from datetime import timedelta

import pytest

from tests.support.cookie_browser import Browser
from tests.support.servers import Muster
from tests.support.sessions import make_older
from tests.support.sockets import Socket, new_room

pytestmark = pytest.mark.one_database


@pytest.fixture
def browser(muster: Muster) -> Browser:
    return Browser(muster).sign_in(muster.new_account(name="Ada"))


def test_a_page_of_the_service_chats_with_its_cookie(muster: Muster, browser: Browser) -> None:
    room = new_room()
    with Socket(muster, room=room, headers={"Cookie": browser.cookie, "Origin": browser.origin}) as ours:
        ours.ready()
        ours.say("Hello")
        assert ours.message()["author"] == "Ada"
    read = browser.call("GET", f"/api/chat/messages?room={room}").json()
    assert [message["text"] for message in read] == ["Hello"]
    body = {"text": "Again", "room": room}
    assert browser.call("POST", "/api/chat/messages", json=body).status_code == 201
    foreign = browser.call("POST", "/api/chat/messages", json=body, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None], ids=ascii)
def test_a_page_of_another_site_cannot_chat_with_the_cookie(
    muster: Muster, browser: Browser, origin: str | None
) -> None:
    headers = {"Cookie": browser.cookie, **({"Origin": origin} if origin else {})}
    with Socket(muster, headers=headers) as theirs:
        assert theirs.closed() == 4403


def test_a_header_never_falls_back_to_the_cookie(muster: Muster, browser: Browser) -> None:
    headers = {"Cookie": browser.cookie, "Origin": browser.origin, "Authorization": "Bearer made.up.token"}
    with Socket(muster, headers=headers) as bad:
        assert bad.closed() == 4401


def test_a_revoked_cookie_is_closed_with_4401(muster: Muster, browser: Browser) -> None:
    headers = {"Cookie": browser.cookie, "Origin": browser.origin}
    make_older(muster, browser.token, age=timedelta(days=31))
    with Socket(muster, headers=headers) as dead:
        assert dead.closed() == 4401

"""Two browsers chat while one of them loses its connection; and what a person sees when it does not work."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.support.chromium import Chromium, Visitor
from tests.support.databases import fresh_database
from tests.support.servers import Account, Muster, claims_of
from tests.support.sockets import new_room, post

pytestmark = pytest.mark.one_database

LINKED = "noreferrer noopener"


@pytest.fixture
def serve_limited(folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance that takes four messages in four seconds."""
    with fresh_database("sqlite", folder, postgres) as url, Muster(url, folder, LIMIT_CHAT="4/4seconds") as served:
        yield served


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def heard(page: Page, mark: str) -> list[str]:
    """The shown messages that contain `mark`; those of other tests are in the same room."""
    return [text.strip() for text in page.locator(".messages .text").all_inner_texts() if mark in text]


def test_two_browsers_chat_while_one_loses_its_connection(muster: Muster, chromium: Chromium) -> None:
    """Then one of them writes too much, and the session of the other is revoked."""
    accounts, mark = {name: muster.new_account(name=name) for name in ("Ada", "Bob")}, uuid4().hex
    with chromium.visitor(muster) as ada, chromium.visitor(muster) as bob:
        for visitor, account in zip((ada, bob), accounts.values(), strict=True):
            visitor.sign_in(account.email)
            visitor.open("/chat")
            expect(visitor.page.get_by_role("status")).to_have_text("connected")
        say(ada.page, f"{mark} 1 <b>&amp;")
        expect(bob.page.get_by_text(f"{mark} 1 <b>&amp;", exact=True)).to_be_visible()
        expect(bob.page.locator("li", has_text=f"{mark} 1")).to_contain_text("Ada")
        bob.context.set_offline(True)
        expect(bob.page.get_by_role("status")).to_have_text("not connected")
        expect(bob.page.get_by_role("status")).to_contain_class("bad")
        expect(bob.page.get_by_role("alert")).to_contain_text("The connection is lost.")
        for number in range(2, 6):
            say(ada.page, f"{mark} {number}")
        say(bob.page, f"{mark} bob, offline")
        expect(bob.page.locator(".unsent")).to_have_count(1)
        bob.context.set_offline(False)
        expect(bob.page.get_by_role("status")).to_have_text("connected")
        expect(bob.page.get_by_role("status")).not_to_contain_class("bad")
        expect(bob.page.get_by_role("alert")).to_be_hidden()
        say(ada.page, f"{mark} 6")
        for page in (ada.page, bob.page):
            expect(page.get_by_text(f"{mark} 6", exact=True)).to_be_visible()
            expect(page.get_by_text(f"{mark} bob, offline", exact=True)).to_have_count(1)
            expect(page.locator(".unsent")).to_have_count(0)
        expected = [f"{mark} 1 <b>&amp;", *(f"{mark} {number}" for number in range(2, 6))]
        for page in (ada.page, bob.page):
            assert [text for text in heard(page, mark) if "bob" not in text] == [*expected, f"{mark} 6"]
        assert heard(ada.page, mark) == heard(bob.page, mark), "one order for all"
        bob.page.reload()
        expect(bob.page.get_by_text(f"{mark} 6", exact=True)).to_be_visible()
        assert heard(bob.page, mark) == heard(ada.page, mark), "and nothing twice"
        a_message_that_is_too_long_returns_to_the_input(ada.page)
        a_session_that_is_revoked_says_so(bob, accounts["Bob"], mark)


def a_message_that_is_too_long_returns_to_the_input(page: Page) -> None:
    say(page, "a" * 4097)
    expect(page.get_by_role("alert")).to_contain_text("4096")
    expect(page.get_by_label("Message", exact=True)).to_have_value("a" * 4097)
    expect(page.locator(".unsent")).to_have_count(0)


def a_session_that_is_revoked_says_so(visitor: Visitor, account: Account, mark: str) -> None:
    page, muster, tokens = visitor.page, account.muster, account.tokens()
    sessions = muster.client.get("/api/users/me/sessions", headers=tokens.bearer).json()
    assert claims_of(tokens.access)["sid"] in {session["id"] for session in sessions}
    visitor.context.set_offline(True)
    expect(page.get_by_role("status")).to_have_text("not connected")
    muster.client.delete("/api/users/me/sessions", headers=tokens.bearer)
    visitor.context.set_offline(False)
    expect(page.get_by_role("alert")).to_contain_text("Your session has ended.")
    expect(page.get_by_text(mark)).to_have_count(0)
    page.get_by_role("link", name="Sign in").click()
    expect(page).to_have_url(f"{muster.url}/sign-in?next=%2Fchat&done=expired")


def test_a_room_groups_days_and_authors_and_takes_several_lines(muster: Muster, chromium: Chromium) -> None:
    account, room = muster.new_account(name="Ada"), new_room()
    post(muster, account.tokens(), "The day before", room)
    moved = "UPDATE chat_message SET created_at = '{}:00.000000' WHERE room = :room AND {}"
    muster.sql(moved.format("2026-01-30 23:30", "number = 1"), room=room)
    with chromium.visitor(muster, timezone_id="Europe/Berlin") as visitor:
        visitor.sign_in(account.email)
        page = visitor.open("/chat")
        page.get_by_text("Another room").click()
        page.get_by_label("Name of the room").fill(room.upper())
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("status")).to_have_text("connected")
        box = page.get_by_label("Message", exact=True)
        box.fill("One")
        box.press("Shift+Enter")
        page.keyboard.type("https://example.com/<b>, two")
        box.press("Enter")
        expect(page.get_by_role("link", name="https://example.com/", exact=True)).to_have_attribute("rel", LINKED)
        say(page, "Three")
        expect(page.locator(".day").last).to_have_text("today")
        expect(page.locator(".unsent")).to_have_count(0)
        assert heard(page, "One") == ["One\nhttps://example.com/<b>, two"]
        muster.sql(moved.format("2026-01-31 10:00", "number > 1"), room=room)
        page.reload()
        expect(page.locator(".day")).to_have_text(["Saturday, January 31, 2026"])
        expect(page.locator(".messages .same")).to_contain_text(["Three"])
        expect(page.get_by_role("navigation", name="Rooms").locator("[aria-current]")).to_contain_text(room)


def test_without_javascript_the_chat_is_a_page_with_a_form(muster: Muster, chromium: Chromium) -> None:
    account, mark = muster.new_account(name="<i>Ada</i>"), uuid4().hex
    with chromium.visitor(muster, java_script_enabled=False) as visitor:
        visitor.sign_in(account.email)
        page = visitor.open("/chat")
        say(page, f"{mark} <script>")
        expect(page.get_by_text(f"{mark} <script>", exact=True)).to_be_visible()
        say(page, "a" * 4097)
        expect(page.get_by_role("alert")).to_contain_text("4096")


def test_a_limited_message_shows_a_notice_and_is_sent_later(serve_limited: Muster, chromium: Chromium) -> None:
    """Eight messages written offline are sent at once; the notice stays until the browser's clock is advanced."""
    sent: Counter[str] = Counter()
    with chromium.visitor(serve_limited) as visitor:
        visitor.sign_in(serve_limited.new_account().email)
        visitor.page.on(
            "websocket", lambda each: each.on("framesent", lambda frame: sent.update([json.loads(frame)["text"]]))
        )
        visitor.page.clock.install()
        page = visitor.open("/chat")
        expect(page.get_by_role("status")).to_have_text("connected")
        page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
        visitor.context.set_offline(True)
        expect(page.get_by_role("status")).to_have_text("not connected")
        for number in range(8):
            say(page, f"message {number}")
        visitor.context.set_offline(False)
        expect(page.get_by_role("alert")).to_contain_text("You are sending messages too fast.")
        page.clock.resume()
        expect(page.locator(".unsent")).to_have_count(0)
        assert heard(page, "message") == [f"message {number}" for number in range(8)]
        assert max(sent.values()) <= 3, "each again after its own refusal, not after that of another"


def test_messages_refused_by_a_busy_service_are_sent_later(serve_limited: Muster, chromium: Chromium) -> None:
    with chromium.visitor(serve_limited) as visitor:
        visitor.sign_in(serve_limited.new_account().email)
        page = visitor.open("/chat?room=busy")
        expect(page.get_by_role("status")).to_have_text("connected")
        with sqlite3.connect(serve_limited.database_url.removeprefix("sqlite:///")) as busy:
            busy.execute("BEGIN IMMEDIATE")
            for number in range(2):
                say(page, f"message {number}")
            expect(page.get_by_role("alert")).to_contain_text("The service is busy.")
        busy.close()
        expect(page.locator(".unsent")).to_have_count(0)
        assert sorted(heard(page, "message")) == ["message 0", "message 1"]

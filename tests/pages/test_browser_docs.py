"""Swagger UI, used by a person: Authorize leads to our pages and back, a session refreshes itself, Logout ends it."""

from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Page, expect

from tests.support.accessibility import PAINTED
from tests.support.chromium import Chromium
from tests.support.servers import Account, Muster, wait_for
from tests.support.swagger_ui import EMPTY, STORED, begin_authorizing, read_me

pytestmark = pytest.mark.one_database


def sign_in(popup: Page, account: Account) -> None:
    popup.get_by_label("E-mail").fill(account.email)
    popup.get_by_label("Password").fill(account.password)
    popup.get_by_role("main").get_by_role("button", name="Sign in").click()


def sessions(muster: Muster, account: Account) -> list[tuple[int, bool]]:
    """The generation of each session of Swagger UI, and whether it was revoked."""
    query = "SELECT generation, revoked_at FROM refresh_token WHERE client_id = 'swagger' AND user_id = :id"
    owner = muster.sql("SELECT id FROM user WHERE email = :email", email=account.email)[0].id
    return [(row.generation, row.revoked_at is not None) for row in muster.sql(query, id=owner)]


def test_filter_cancel_authorize_try_it_out_refresh_log_out_and_leave(muster: Muster, chromium: Chromium) -> None:
    """One story: showing the page takes ten times as long as anything that is done there."""
    account = muster.new_account()
    with chromium.visitor(muster, color_scheme="dark", viewport={"width": 360, "height": 640}) as visitor:
        sent: list[tuple[str, str]] = []
        visitor.context.on("request", lambda each: sent.append((each.url, each.headers.get("referer", ""))))
        page = visitor.open("/api/docs")
        errors_that_all_routes_share_are_described_once(page)
        cancel_signs_nobody_in(page, account)
        assert sessions(muster, account) == []

        authorize(page)
        assert any("docs-signed-in.html?code=" in url for url, _ in sent)
        assert not [referer for _, referer in sent if "code=" in referer]
        page.get_by_placeholder("Filter by tag").fill("account")
        read_me(page, account)
        assert page.evaluate(STORED) == EMPTY
        page.evaluate("() => { const now = Date.now; Date.now = () => now() + 585_000 }")  # of ten minutes
        with page.expect_request("**/api/auth/token") as refreshed:
            read_me(page, account)
        assert parse_qs(refreshed.value.post_data or "")["grant_type"] == ["refresh_token"]
        assert sessions(muster, account) == [(2, False)]

        page.get_by_role("button", name="Authorize").first.click()
        dialog = page.locator(".modal-ux")
        dialog.get_by_text("Logout").click()
        wait_for(lambda: sessions(muster, account) == [(2, True)], what="the revocation")
        assert page.evaluate(STORED) == EMPTY
        dialog.get_by_role("button", name="Close").last.click()

        authorize(page)
        assert sorted(sessions(muster, account)) == [(1, False), (2, True)]
        page.get_by_role("link", name="Back to the pages").click()
        expect(page).to_have_url(f"{muster.url}/operations")
        wait_for(lambda: sorted(sessions(muster, account)) == [(1, True), (2, True)], what="the revocation")


def errors_that_all_routes_share_are_described_once(page: Page) -> None:
    page.get_by_placeholder("Filter by tag").fill("changes")
    expect(page.locator("#operations-account-readMe")).to_have_count(0)
    expect(page.locator(".models").get_by_role("button", name="Schemas")).to_have_attribute("aria-expanded", "false")
    operation = page.locator("#operations-operations-listChanges")
    operation.get_by_role("button").first.click()
    expect(operation.locator("tr.response td.response-col_status")).to_have_text(["200", "410"])
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def cancel_signs_nobody_in(page: Page, account: Account) -> None:
    popup, dialog = begin_authorizing(page)
    sign_in(popup, account)
    expect(popup.get_by_role("button", name="Continue")).to_be_visible()
    popup.wait_for_load_state()  # what is visible may still be without its style sheet
    popup.evaluate(PAINTED)
    assert popup.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for _ in range(20):  # by keyboard alone
        popup.keyboard.press("Tab")
        if popup.evaluate("document.activeElement.value") == "cancel":
            break
    with popup.expect_event("close"):
        popup.keyboard.press("Enter")
    expect(dialog.get_by_text("The person did not consent.")).to_be_visible()
    dialog.get_by_role("button", name="Close").last.click()


def authorize(page: Page) -> None:
    """Authorize as somebody who is signed in to the pages."""
    popup, dialog = begin_authorizing(page)
    expect(popup.get_by_text("API documentation wants to:")).to_be_visible()
    with popup.expect_event("close"):
        popup.get_by_role("button", name="Continue").click()
    expect(dialog.get_by_role("heading", name="Authorized")).to_be_visible()
    dialog.get_by_role("button", name="Close").last.click()

"""Swagger UI, used by a person: Authorize with e-mail and password, then Try it out."""

import pytest
from playwright.sync_api import expect

from tests.support.chromium import Chromium
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database


def test_authorize_and_try_it_out(on_sqlite: Muster, chromium: Chromium) -> None:
    account = on_sqlite.new_account()
    with chromium.visitor(on_sqlite) as visitor:
        page = visitor.open("/api/docs")
        page.get_by_role("button", name="Authorize").first.click()
        dialog = page.locator(".modal-ux")
        dialog.get_by_label("username").fill(account.email)
        dialog.get_by_label("password").fill(account.password)
        dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
        expect(dialog.get_by_text("Available authorizations")).to_be_visible()
        expect(dialog.get_by_role("heading", name="Authorized")).to_be_visible()
        dialog.get_by_role("button", name="Close").last.click()
        page.locator("#operations-account-readMe").get_by_role("button").first.click()
        page.locator("#operations-account-readMe").get_by_role("button", name="Execute").click()
        answer = page.locator("#operations-account-readMe .live-responses-table")
        expect(answer.get_by_text("200", exact=True)).to_be_visible()
        expect(answer).to_contain_text(account.email)

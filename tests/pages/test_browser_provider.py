"""A person signs in to the pages at the identity provider, in a real browser: with the API as one, and apart."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.support.accessibility import AXE, NARROW, check
from tests.support.chromium import Chromium
from tests.support.databases import fresh_database
from tests.support.oidc_provider import CLIENT, PHONE, OidcProvider, secret_of
from tests.support.servers import Muster
from tests.support.swagger_ui import begin_authorizing

pytestmark = pytest.mark.one_database

BUTTON = "Sign in with your organization's account"


@pytest.fixture(scope="module")
def settings(provider: OidcProvider) -> dict[str, str]:
    return {
        "OIDC_ISSUER": provider.issuer,
        "OIDC_CLIENT_ID": CLIENT,
        "OIDC_CLIENT_SECRET": secret_of(CLIENT),
        "LOCAL_ACCOUNTS": "off",
    }


@pytest.fixture(scope="module", params=["together", "apart"])
def pages(request: pytest.FixtureRequest, settings: dict[str, str], folder: Path, postgres: str) -> Iterator[Muster]:
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database("sqlite", folder, postgres))
        api = Muster(url, folder, app=None if request.param == "together" else "app.main:api", **settings)
        api.settings["PUBLIC_URL"] = api.url
        if request.param == "together":
            yield stack.enter_context(api)
            return
        api.settings |= {"OIDC_CLIENT_ID": f"{PHONE},{CLIENT}", "OIDC_CLIENT_SECRET": ""}  # a public client, and ES256
        web = Muster("sqlite:///nothing.db", folder, app="app.main:web", API_URL=api.url, **settings)
        api.settings["SERVES"] = "api"
        api.settings |= {"CORS_ORIGINS": web.url, "TRUSTED_PROXIES": "127.0.0.1"}
        stack.enter_context(api)
        yield stack.enter_context(web)


def sign_in(page: Page, name: str | None) -> None:
    """Sign in by the button on this page and the forms of the provider."""
    page.get_by_role("link", name=BUTTON).click()
    if name:
        page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Sign in" if name else "Cancel").click()


def check_once(page: Page, pages: Muster) -> None:
    """Check the page only once: where the API is apart, the pages are of the same templates."""
    if "API_URL" not in pages.settings:
        check(page, page.url)


def test_a_person_signs_in_and_out_and_deletes_the_account(pages: Muster, chromium: Chromium) -> None:
    name = f"ada-{uuid4().hex}"
    with chromium.visitor(pages, viewport=NARROW) as visitor:
        visitor.context.add_init_script(AXE)
        page = visitor.open("/devices")  # which sends signed-out visitors to the sign-in
        check_once(page, pages)
        expect(page.get_by_label("Password")).to_have_count(0)
        sign_in(page, name)
        expect(page).to_have_url(f"{pages.url}/devices")
        expect(page.get_by_text("this device")).to_be_visible()
        check_once(visitor.open("/operations"), pages)
        expect(page.get_by_role("link", name="Add an operation")).to_be_visible()
        check_once(visitor.open("/account"), pages)
        expect(page.get_by_role("main").get_by_text(f"{name}@provider.example")).to_be_visible()
        expect(page.locator("input[type=password], input[type=email]")).to_have_count(0)
        page.locator("summary.person").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("status")).to_have_text("You are signed out.")
        page.get_by_role("link", name=BUTTON).click()  # still signed in there, so nothing is asked
        expect(page).to_have_url(f"{pages.url}/operations")
        visitor.open("/account")
        page.get_by_text("Delete my account and all my data").click()
        page.get_by_role("button", name="Delete my account").click()
        expect(page.get_by_role("status")).to_have_text("Your account was deleted.")


def test_a_person_who_cancels_can_try_again(pages: Muster, chromium: Chromium) -> None:
    with chromium.visitor(pages, viewport=NARROW) as visitor:
        visitor.context.add_init_script(AXE)
        page = visitor.open("/sign-in")
        sign_in(page, None)
        expect(page).to_have_url(f"{pages.url}/sign-in?problem=sign-in-refused")
        expect(page.get_by_role("alert")).to_contain_text("did not let you in")
        check_once(page, pages)
        sign_in(page, "ada")
        expect(page).to_have_url(f"{pages.url}/operations")


def test_swagger_ui_signs_in_through_our_pages_or_takes_a_token(
    pages: Muster, provider: OidcProvider, chromium: Chromium
) -> None:
    """The API alone has no pages at its address, so there a token of the provider is pasted."""
    name = f"dev-{uuid4().hex}"
    with chromium.visitor(pages.settings.get("API_URL", pages.url)) as visitor:
        page = visitor.open("/api/docs")
        if "API_URL" in pages.settings:
            page.get_by_role("button", name="Authorize").first.click()
            dialog = page.locator(".modal-ux")
            expect(dialog).to_contain_text(provider.issuer)
            dialog.get_by_role("textbox").fill(provider.sign_in(name, client=CLIENT).access)
            dialog.get_by_role("button", name="Apply credentials").click()
        else:
            popup, dialog = begin_authorizing(page)
            sign_in(popup, name)
            with popup.expect_event("close"):
                popup.get_by_role("button", name="Continue").click()
        expect(dialog.get_by_role("heading", name="Authorized")).to_be_visible()  # the cookie would do below
        dialog.get_by_role("button", name="Close").last.click()
        page.locator("#operations-account-readMe").get_by_role("button").first.click()
        page.locator("#operations-account-readMe").get_by_role("button", name="Execute").click()
        expect(page.locator("#operations-account-readMe .live-responses-table")).to_contain_text(name)

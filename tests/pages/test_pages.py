"""The pages over HTTP, as a browser without JavaScript sees them."""

import re
from datetime import timedelta
from html import unescape
from uuid import uuid4

import httpx
import pytest

from app import main
from tests.support.cookie_browser import Browser
from tests.support.html import ELSEWHERE, Elements, submit
from tests.support.servers import PASSWORD, Muster, claims_of
from tests.support.sessions import make_older

pytestmark = pytest.mark.one_database

HOSTILE = {
    "a script": "<script>alert(1)</script>",
    "quotes": "\"'><img src=x onerror=alert(1)>",
    "markup": "{{ 7*7 }} {% raw %} &amp; <!--",
    "right to left": "\u202egpj.exe",
    "emoji": "👩🏽\u200d🚀 Ada",
}


@pytest.fixture
def browser(muster: Muster) -> Browser:
    return Browser(muster).sign_in(muster.new_account())


# ---- Signing in and out ----


def test_registering_signs_in(muster: Muster) -> None:
    browser, email = Browser(muster), f"{uuid4().hex}@example.com"
    answer = submit(browser, "/register", email=email.upper(), name="Ada", password=PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/operations")
    assert browser.call("GET", "/operations").status_code == 200
    again = submit(Browser(muster), "/register", email=email, password=PASSWORD)
    assert again.status_code == 409
    assert "An account with this e-mail address exists. Sign in, or reset your password." in again.text
    assert 'aria-invalid="true"' in again.text


def test_a_wrong_password_shows_the_form_again_without_it(muster: Muster) -> None:
    account = muster.new_account()
    answer = submit(Browser(muster), "/sign-in", username=account.email, password="not-it-at-all", next="/devices")
    assert answer.status_code == 400
    assert Elements(answer.text).value("username") == account.email
    assert Elements(answer.text).value("next") == "/devices"
    assert "not-it-at-all" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("next_page", ["/devices", "/operations?type=sell&from=2023-01-01", "/operations/7"])
def test_signing_in_leads_to_the_requested_page(muster: Muster, next_page: str) -> None:
    refused = Browser(muster).call("GET", next_page)
    assert refused.status_code == 303
    form = Elements(Browser(muster).call("GET", refused.headers["location"]).text)
    assert form.value("next") == next_page
    account = muster.new_account()
    answer = submit(Browser(muster), "/sign-in", username=account.email, password=PASSWORD, next=form.value("next"))
    assert answer.headers["location"] == next_page


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=ascii)
def test_signing_in_never_leads_to_another_site(muster: Muster, elsewhere: str) -> None:
    account = muster.new_account()
    answer = submit(Browser(muster), "/sign-in", username=account.email, password=PASSWORD, next=elsewhere)
    assert (answer.status_code, answer.headers["location"]) == (303, "/operations")


def test_the_end_of_a_session_is_reported_and_its_cookie_removed(muster: Muster, browser: Browser) -> None:
    make_older(muster, browser.token, age=timedelta(days=31))
    answer = browser.call("GET", "/account")
    assert answer.headers["location"] == "/sign-in?next=%2Faccount&done=expired"
    assert browser.cookie == "muster="
    assert "Your session has ended." in browser.call("GET", answer.headers["location"]).text


@pytest.mark.parametrize("path", ["/sign-in", "/register", "/account/name", "/operations/new", "/jobs", "/sign-out"])
def test_a_form_of_another_site_is_refused(muster: Muster, browser: Browser, path: str) -> None:
    account = muster.new_account()
    form = {"username": account.email, "email": "a@example.com", "password": PASSWORD, "name": "Mallory"}
    answer = browser.call("POST", path, data=form, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert browser.call("GET", "/api/users/me").json()["name"] is None


# ---- Text that a person typed ----


@pytest.mark.slow
@pytest.mark.both_databases
@pytest.mark.parametrize("typed", HOSTILE.values(), ids=HOSTILE)
def test_text_that_a_person_typed_is_shown_and_never_run(muster: Muster, typed: str) -> None:
    browser = Browser(muster)
    email = f"{uuid4().hex}@example.com"
    assert submit(browser, "/register", email=email, name=typed, password=PASSWORD).status_code == 303
    account = browser.call("GET", "/account")
    assert_harmless(account)
    assert Elements(account.text).value("name") == typed
    added = submit(browser, "/operations/new", type="sell", figi=typed[:50], quantity="1", date="2023-10-26T08:29")
    assert added.status_code == 303, added.text
    ledger = browser.call("GET", "/operations")
    assert_harmless(ledger)
    assert f"<bdi>{typed}</bdi>" in unescape(ledger.text)
    filtered = browser.call("GET", "/operations", params={"figi": typed, "type": typed})
    assert_harmless(filtered)
    refused = submit(browser, "/operations/new", type=typed * 20, figi="x", quantity=typed, date=typed)
    assert refused.status_code == 422
    assert_harmless(refused)
    assert Elements(refused.text).value("quantity") == typed
    assert_harmless(submit(Browser(muster), "/sign-in", username=typed, password="x", next=typed))


def assert_harmless(page: httpx.Response) -> None:
    tags = Elements(page.text).tags
    assert not [attrs for _, attrs in tags if any(name.startswith("on") or name == "style" for name in attrs)]
    assert all((attrs.get("src") or "/static/").startswith("/static/") for _, attrs in tags)
    assert not re.search(r"<script(?! src=)|<style", page.text)
    assert "49 " not in page.text


# ---- The headers of every page ----

PATHS = {
    route.path
    for included in main.app.pages.routes
    for route in getattr(getattr(included, "original_router", None), "routes", ())
    if "GET" in route.methods and not route.path.startswith("/dev/")  # which is there in development only
}
PUBLIC = {"/", "/authorize", "/forgot-password", "/register", "/reset-password", "/sign-in", "/verify-email"}
# Whoever is signed in is sent on from these, or to an address with a key.
SENT_ON = {"/", "/operations/export", "/operations/import", "/operations/new", "/register", "/sign-in"}
MORE = {"/nowhere", "/operations/import?key=1", "/operations/new?key=1", "/operations?from=x"}


def filled_in(path: str, person: str) -> str:
    return re.sub(r"\{\w+:uuid\}", person, path).replace("{operation_id:int}", "9")


def test_every_page_has_the_headers_that_protect_it(muster: Muster) -> None:
    assert PUBLIC | SENT_ON <= PATHS
    account = muster.admin()
    admin, me = Browser(muster).sign_in(account), claims_of(account.tokens().access)["sub"]
    for who, paths in ((Browser(muster), PUBLIC | {"/nowhere"}), (admin, PATHS - SENT_ON | MORE)):
        for path in paths:
            answer = who.call("GET", filled_in(path, me), headers={})
            assert answer.headers["content-type"] == "text/html; charset=utf-8", path
            assert answer.headers["cache-control"] == "private, no-store"
            assert_protected(answer)
            assert_harmless(answer)
    for who, paths in ((Browser(muster), PATHS - PUBLIC), (admin, SENT_ON)):
        for path in paths:
            answer = who.call("GET", filled_in(path, me), headers={})
            assert (answer.status_code, answer.content) == (303, b""), path
            assert_protected(answer)


def assert_protected(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy.split("; "))
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" not in answer.headers, "not over plain http"


@pytest.mark.parametrize("path", sorted(PATHS - PUBLIC - {"/operations/export"}))  # leads to the API, which requires it
def test_private_pages_require_signing_in(muster: Muster, path: str) -> None:
    answer = Browser(muster).call("GET", filled_in(path, str(uuid4())))
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in")


@pytest.mark.parametrize("path", ["/sign-in", "/api/docs"])
def test_the_typeface_is_fetched_before_the_styles_that_use_it(muster: Muster, path: str) -> None:
    first, _ = re.findall(r'<link rel="(?:preload|stylesheet)" href="([^"]+)', Browser(muster).call("GET", path).text)[
        :2
    ]
    assert first.startswith("/static/fonts/")
    assert muster.client.get(first).headers["content-type"] == "font/woff2"

"""The pages in a real browser: accessible, without layout shifts, usable by keyboard, and honest about trouble."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, ViewportSize, expect

from tests.support.accessibility import AXE, NARROW, PAINTED, WIDE, assert_fits, check, check_layout
from tests.support.chromium import Chromium, Visitor
from tests.support.databases import fresh_database
from tests.support.ledgers import OPERATION
from tests.support.oauth_clients import App
from tests.support.servers import Account, Muster, Tokens
from tests.support.sockets import post

pytestmark = pytest.mark.one_database

SIGNED_OUT = [
    "/",
    "/sign-in?done=expired",
    "/register",
    "/forgot-password",
    "/reset-password",
    "/verify-email",
    "/nowhere",
]
SIGNED_IN = [
    "/operations",
    "/operations/new",
    "/operations?from=x",
    "/operations/import",
    "/devices",
    "/jobs",
    "/chat",
    "/chat?room=where-nobody-writes",
    "/account",
    "/admin",
    "/admin?search=nobody-at-all",
    "/admin/roles",
    "/admin/jobs",
    "/admin/apps",
    "/admin/history",
    "/admin/system",
]
TABLET: ViewportSize = {"width": 768, "height": 800}


# When the last script had come.
SCRIPTED = """() => Math.max(...performance.getEntriesByType("resource")
  .filter((entry) => entry.initiatorType === "script").map((entry) => entry.responseEnd))"""
# What `wait_for_function` would do with a string, the pages' policy forbids: waiting is a promise.
UNSAFE_IMAGE = """() => new Promise((done) => {
  document.body.insertAdjacentHTML("beforeend", `<img src=x onerror="document.title='run'">`);
  document.body.lastElementChild.addEventListener("error", () => done());
})"""


@pytest.fixture(scope="module")
def muster(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance of these tests' own: what others name their things would be on its pages."""
    with fresh_database(kind, folder, postgres) as url, Muster(url, folder) as served:
        yield served


@pytest.fixture(scope="module")
def account(muster: Muster) -> Account:
    """An account with something to show on every page."""
    account = muster.new_account(name="Ada, Countess of Lovelace", role="admin")
    muster.new_account(name="Grace").sign_in()
    tokens: Tokens = account.sign_in(device="Ada's phone")
    for day in range(1, 30):
        body = {**OPERATION, "date": f"2023-{day % 12 + 1:02}-{day:02}T08:29:31Z"}
        muster.client.post("/api/operations", json=body, headers=tokens.bearer)
    widest = {"type": "t" * 50, "instrument_type": "i" * 50, "figi": "F" * 50, "quantity": "999999999999.12345678"}
    muster.client.post("/api/operations", json={**OPERATION, **widest}, headers=tokens.bearer).raise_for_status()
    for text in ("Good morning", "w" * 200):
        post(muster, tokens, text)
    for kind in ("statement", "export"):
        muster.client.post(f"/api/jobs/{kind}", json={}, headers=tokens.bearer)
    return account


@pytest.fixture
def visitor(muster: Muster, chromium: Chromium) -> Iterator[Visitor]:
    with chromium.visitor(muster) as visitor:
        visitor.context.add_init_script(AXE)
        yield visitor


def test_every_page_is_accessible_stable_and_fits_the_screen(
    visitor: Visitor, account: Account, tmp_path: Path
) -> None:
    for path in SIGNED_OUT:
        visit(visitor, path)
    page = visitor.open("/reset-password#token=of-no-use")
    page.get_by_label("New password").fill("copper-lantern-meadow")
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "a failed link")
    visitor.sign_in(account.email)
    for path in (*SIGNED_IN, App(account.muster).request(scope="me operations:read")):
        visit(visitor, path)
    page = visitor.open("/devices")
    page.get_by_text("Rename").first.click()
    page.get_by_label("Name", exact=True).first.fill("https://example.com")
    page.get_by_role("button", name="Save name").first.click()
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "a refused name of a device")
    page = visitor.open("/operations")
    page.get_by_role("link", name="Edit sell").first.click()
    page.get_by_text("Delete this operation").click()
    check(page, "an operation")
    page.get_by_label("Quantity").fill("nothing")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "a refused operation")
    page = visitor.open("/operations/import")
    page.get_by_label("Lines").fill("type,figi,quantity,date\n" + "buy,X,none,today\n" * 30)
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_text("Nothing was imported: these 20 lines, and perhaps more, are wrong.")).to_be_visible()
    check(page, "a refused import")
    saved, link = tmp_path / "statement.html", visitor.open("/jobs").get_by_role("link", name="Read").first
    saved.write_bytes(visitor.context.request.get(f"{visitor.url}{link.get_attribute('href')}").body())
    page.goto(saved.as_uri())
    check(page, "a statement that was saved")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.emulate_media(media="screen")
    page = visitor.open("/admin?search=Grace")
    page.get_by_role("link", name="Grace").first.click()
    page.get_by_text("Delete account").first.click()
    check(page, "a person")


def visit(visitor: Visitor, path: str) -> None:
    """Open a page on a wide screen, which is narrowed to that of a tablet, and on a phone."""
    visitor.page.set_viewport_size(WIDE)
    check_layout(visitor.open(path), path)
    visitor.page.set_viewport_size(TABLET)
    assert_fits(visitor.page, path)
    visitor.page.set_viewport_size(NARROW)
    check(visitor.open(path), path)


def test_a_person_signs_in_and_skips_to_the_content_by_keyboard_alone(
    muster: Muster, chromium: Chromium, account: Account
) -> None:
    with chromium.visitor(muster) as visitor:
        page = visitor.open("/sign-in")
        expect(page.get_by_label("E-mail")).to_be_focused()
        page.evaluate(PAINTED)
        page.keyboard.type(account.email)
        page.keyboard.press("Tab")
        page.keyboard.type(account.password)
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{muster.url}/operations")
        page.wait_for_load_state()  # the address is there first, and a key pressed too early goes elsewhere
        page.evaluate(PAINTED)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Add an operation")).to_be_focused()
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"
        assert page.evaluate("document.fonts.load('16px Geist').then((faces) => faces.length)"), "a typeface of our own"


def test_a_person_consents_by_keyboard_and_no_referer_names_the_request_or_the_code(
    muster: Muster, chromium: Chromium
) -> None:
    """The sign-in leads back to the app also if that asks for too much."""
    account = muster.new_account()
    received: list[BaseHTTPRequestHandler] = []

    class AppOnThisDevice(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(self)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), AppOnThisDevice) as server,
        chromium.visitor(muster, color_scheme="dark", viewport={"width": 360, "height": 640}) as visitor,
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        referers: list[str] = []
        visitor.context.on("request", lambda request: referers.append(request.headers.get("referer", "")))
        app = App(muster, redirect_uri="http://127.0.0.1/signed-in")
        redirect_uri = f"http://127.0.0.1:{server.server_port}/signed-in"
        page = visitor.sign_in(account.email, path=app.request(redirect_uri=redirect_uri, scope="users:write"))
        page.wait_for_url("**/signed-in?error=invalid_scope*")
        assert any(referers)  # the browser does send some
        referers.clear()
        page = visitor.open(app.request(redirect_uri=redirect_uri))
        page.evaluate(PAINTED)
        stops = [press_tab(page) for _ in range(12)]
        assert stops.index("Continue") < stops.index("Cancel") < stops.index("Use another account")
        page.get_by_role("button", name="Continue").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/signed-in?code=*")
        server.shutdown()
    refused, redirected = (each for each in received if each.path.startswith("/signed-in"))
    assert set(parse_qs(urlsplit(redirected.path).query)) == {"code", "state", "iss"}
    for each in (refused, redirected):
        assert "referer" not in each.headers
    assert not any(referers)


def press_tab(page: Page) -> str:
    page.keyboard.press("Tab")
    return str(page.evaluate("document.activeElement.innerText")).strip()


def test_forms_work_without_javascript(muster: Muster, chromium: Chromium) -> None:
    account = muster.new_account()
    with chromium.visitor(muster, java_script_enabled=False) as visitor:
        page = visitor.sign_in(account.email)
        page.get_by_role("link", name="Add an operation").click()
        for label, text in (("Type", "sell"), ("FIGI", "X"), ("Quantity", "1"), ("Date and time", "2023-10-26T08:29")):
            page.get_by_label(label).fill(text)
        page.get_by_role("button", name="Add").click()
        expect(page.locator("svg title")).to_have_count(12)
        page.get_by_role("link", name="Statements").click()
        page.get_by_role("button", name="Create statement").click()
        expect(page.get_by_role("status")).to_have_text("Your statement is being prepared. It appears below.")
        page.goto(f"{muster.url}/reset-password")
        expect(page.get_by_label("Code from the link")).to_be_visible()
        page.goto(f"{muster.url}/operations/import")
        assert page.get_by_label("CSV file").bounding_box() is None, "it leaves no hole"


def test_text_that_a_person_typed_never_runs(muster: Muster, chromium: Chromium) -> None:
    evil = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    account = muster.new_account(name=evil)
    with chromium.visitor(muster) as visitor:
        visitor.sign_in(account.email)
        page = visitor.open("/account")
        expect(page.get_by_label("Name")).to_have_value(evil)
        page.goto(f"{muster.url}/sign-in?next=javascript:document.title='run'")
        assert page.title() != "run"
        # Even if markup got in, the policy would stop it.
        page.evaluate(UNSAFE_IMAGE)
        assert page.title() != "run"
        assert "Content Security Policy" in " ".join(visitor.errors)
        visitor.errors.clear()


def test_nothing_is_painted_before_the_script_that_changes_it(visitor: Visitor, account: Account) -> None:
    """Otherwise it would jump, and a click could come before the code that handles it."""

    def come_late(script: Route) -> None:
        visitor.page.evaluate("() => new Promise((done) => setTimeout(done, 300))")  # time enough to paint the rest
        script.continue_()

    visitor.sign_in(account.email)
    visitor.page.route(re.compile(r"/static/(chat|import|link)\.js"), come_late)
    for path in ("/chat", "/operations/import", "/reset-password#token=of-no-use"):
        page = visitor.open(path)
        assert page.evaluate(PAINTED) > page.evaluate(SCRIPTED), path


def test_a_password_typed_before_the_script_has_loaded_is_checked(muster: Muster, chromium: Chromium) -> None:
    """The browser does not wait for scripts before it paints."""

    def paint_at_once(document: Route) -> None:
        answer = document.fetch()
        document.fulfill(response=answer, body=answer.text().replace('blocking="render"', ""))

    def type_first(script: Route) -> None:
        page.evaluate(PAINTED)
        page.get_by_label("Password").focus()
        page.keyboard.type("password1")
        script.continue_()

    with chromium.visitor(muster) as visitor:
        page = visitor.page
        page.route("**/register", paint_at_once)
        page.route("**/static/page.js", type_first)
        visitor.open("/register")
        expect(page.get_by_role("button", name="Show")).to_be_visible()
        expect(page.get_by_label("Password")).to_be_focused()
        expect(page.locator(".verdict")).to_contain_text("easy to guess")


def test_errors_are_shown_while_a_statement_is_generated(muster: Muster, chromium: Chromium) -> None:
    """A lost connection, a 429, and a session that ended elsewhere. An unchanged element keeps the focus."""
    account = muster.new_account()
    with chromium.visitor(muster) as visitor:
        visitor.sign_in(account.email)
        answers = iter([200, 200, 429, None, 401])
        body = '<section id="jobs"><button>Cancel</button></section>'

        def answer(route: Route) -> None:
            status = next(answers)
            if status is None:
                route.abort()
            elif status == 401:
                route.fulfill(status=303, headers={"Location": "/sign-in?done=expired"})
            else:
                route.fulfill(status=status, headers={"Retry-After": "40"}, body=body, content_type="text/html")

        page = visitor.page
        page.clock.install()
        visitor.open("/jobs")
        page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
        page.route(f"{muster.url}/jobs", answer)
        page.evaluate("refresh()")
        page.get_by_role("button", name="Cancel").focus()
        page.evaluate("refresh()")
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        page.evaluate("document.getElementById('jobs').dataset.unfinished = ''")
        page.evaluate("refresh()")
        expect(page.get_by_role("alert")).to_have_text(
            "The list cannot be refreshed right now. Trying again in 40 seconds."
        )
        page.clock.run_for("40")
        expect(page.get_by_role("alert")).to_have_text("The connection is lost. Trying again.")
        page.clock.run_for("04")
        expect(page).to_have_url(f"{muster.url}/sign-in?done=expired&next=/jobs")

"""Pages of other origins, allowed or not, under a real browser's CORS rules, with a bearer token or the cookie; and
the pages themselves on another port than the API."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.chromium import Chromium
from tests.support.databases import fresh_database
from tests.support.servers import Account, Muster, free_port
from tests.support.swagger_ui import EMPTY, STORED, read_me

pytestmark = pytest.mark.one_database

ASK = """async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    const text = answer.status === 204 ? "" : await answer.text();
    return { status: answer.status, body: text && JSON.parse(text), ticket: answer.headers.get("X-Request-ID"),
             wait: answer.headers.get("Retry-After"), link: answer.headers.get("Link"), secret: document.cookie };
  } catch (error) {
    return { refused: error.name };
  }
}"""


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def other_pages(folder: Path) -> Iterator[dict[str, str]]:
    """Two sites with a page each: one that the API allows, and one that it does not know."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "index.html").write_text("<!doctype html><title>Elsewhere</title>")
    with ExitStack() as stack:
        origins = {}
        for name in ("friend", "stranger"):
            server = ThreadingHTTPServer(("127.0.0.1", free_port()), partial(Silent, directory=site))
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            Thread(target=server.serve_forever, daemon=True).start()
            origins[name] = f"http://127.0.0.1:{server.server_port}"
        yield origins


@pytest.fixture(scope="module")
def web(folder: Path) -> Muster:
    """The pages alone, not started yet: the API has to know their origin, and they its address."""
    return Muster("sqlite:///nothing.db", folder, app="app.main:web")


@pytest.fixture(scope="module")
def api(other_pages: dict[str, str], web: Muster, folder: Path, postgres: str) -> Iterator[Muster]:
    settings = {"CORS_ORIGINS": f"{other_pages['friend']},{web.url}", "TRUSTED_PROXIES": "127.0.0.1", "SERVES": "api"}
    with (
        fresh_database("sqlite", folder, postgres) as url,
        Muster(url, folder, app="tests.support.apps.failing_routes:api", **settings) as served,
    ):
        web.settings["API_URL"] = served.url
        yield served


@pytest.fixture(scope="module")
def account(api: Muster) -> Account:
    return api.new_account()


@pytest.fixture
def page(request: pytest.FixtureRequest, chromium: Chromium, other_pages: dict[str, str]) -> Iterator[Page]:
    """A page of the site that the test's parameter names."""
    with chromium.visitor(other_pages[request.param]) as visitor:
        yield visitor.open("/")
        visitor.errors.clear()  # the browser itself complains of what it refuses


def ask(page: Page, api: Muster, method: str, path: str, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = page.evaluate(ASK, [api.url + path, {"method": method, **options}])
    return answer


def log_in(page: Page, api: Muster, account: Account, *, mode: str = "cors") -> dict[str, Any]:
    form = f"username={account.email}&password={account.password}"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    options = {"body": form, "headers": headers, "credentials": "include", "mode": mode}
    return ask(page, api, "POST", "/api/auth/cookie/login", **options)


@pytest.mark.parametrize("page", ["friend"], indirect=True)
def test_an_allowed_origin_uses_a_bearer_token_and_reads_every_response(
    page: Page, api: Muster, account: Account
) -> None:
    headers = {**account.tokens().bearer, "Content-Type": "application/json"}
    assert ask(page, api, "GET", "/api/users/me", headers=headers)["body"]["email"] == account.email
    changed = ask(page, api, "PATCH", "/api/users/me", headers=headers, body='{"name": "Ada"}')
    assert (changed["status"], changed["body"]["name"]) == (200, "Ada")
    wrong = ask(page, api, "PATCH", "/api/users/me", headers=headers, body='{"name": 7}')
    assert (wrong["status"], wrong["body"]["type"]) == (422, "/problems/invalid")
    nothing = ask(page, api, "GET", "/api/nowhere", headers=headers)
    assert (nothing["status"], bool(nothing["ticket"])) == (404, True)
    signed_out = ask(page, api, "GET", "/api/users/me")
    assert (signed_out["status"], signed_out["body"]["type"]) == (401, "/problems/unauthenticated")
    broken = ask(page, api, "GET", "/api/broken", headers=headers)
    assert (broken["status"], broken["body"]["type"]) == (500, "/problems/internal")
    assert broken["body"]["ticket"] in api.log


@pytest.mark.parametrize("page", ["friend"], indirect=True)
def test_an_allowed_origin_uses_the_cookie_without_reading_it(page: Page, api: Muster, account: Account) -> None:
    answer = log_in(page, api, account)
    assert (answer["status"], answer["body"], answer["secret"]) == (204, "", "")
    cookie: dict[str, Any] = {"credentials": "include"}
    me = ask(page, api, "GET", "/api/users/me", **cookie)
    assert (me["status"], me["secret"]) == (200, "")
    headers = {"Content-Type": "application/json"}
    changed = ask(page, api, "PATCH", "/api/users/me", **cookie, body='{"name": "Eve"}', headers=headers)
    assert (changed["status"], changed["body"]["name"]) == (200, "Eve")
    assert ask(page, api, "GET", "/api/users/me")["status"] == 401, "without credentials there is no cookie"
    assert ask(page, api, "GET", "/api/broken", **cookie)["status"] == 500
    assert ask(page, api, "POST", "/api/auth/cookie/logout", **cookie)["status"] == 204
    assert ask(page, api, "GET", "/api/users/me", **cookie)["status"] == 401


@pytest.mark.parametrize("page", ["stranger"], indirect=True)
def test_an_unknown_origin_reads_and_changes_nothing(page: Page, api: Muster, account: Account) -> None:
    headers = account.tokens().bearer
    assert ask(page, api, "GET", "/api/users/me", headers=headers) == {"refused": "TypeError"}
    assert ask(page, api, "GET", "/health/live") == {"refused": "TypeError"}
    assert log_in(page, api, account) == {"refused": "TypeError"}
    log_in(page, api, account, mode="no-cors")
    cookies = page.context.cookies(api.url)
    assert cookies == [], "nobody is signed in by a page of another site"
    signed_in = api.client.post(
        "/api/auth/cookie/login",
        data={"username": account.email, "password": account.password},
        headers={"Origin": api.url},
    )
    value = signed_in.headers["set-cookie"].partition(";")[0].partition("=")[2]
    page.context.add_cookies([{"name": "muster", "value": value, "url": api.url, "httpOnly": True, "sameSite": "Lax"}])
    cookie = {"credentials": "include", "mode": "no-cors"}
    for path in ("/api/auth/cookie/logout", "/api/operations", "/api/jobs/statement"):
        ask(page, api, "POST", path, **cookie, body="{}", headers={"Content-Type": "text/plain"})
    assert ask(page, api, "GET", "/api/users/me", credentials="include") == {"refused": "TypeError"}
    still = api.client.get("/api/users/me", headers={"Cookie": f"muster={value}"})
    assert still.status_code == 200, "its sign-out was refused, though the cookie came with it"


def test_the_pages_on_another_port_sign_in_and_chat_and_swagger_ui_takes_the_password(
    api: Muster, web: Muster, chromium: Chromium, account: Account
) -> None:
    with web, chromium.visitor(web) as visitor:
        page = visitor.sign_in(account.email)
        expect(page).to_have_url(f"{web.url}/operations")
        page.get_by_role("link", name="Devices").click()
        expect(page.get_by_text("this device")).to_be_visible()
        page.get_by_role("link", name="Chat").click()
        expect(page.get_by_role("status")).to_have_text("connected")
        page.get_by_label("Message", exact=True).fill("From the other port")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".messages .text")).to_have_text("From the other port")
        expect(page.locator(".unsent")).to_have_count(0)
        page.locator("summary.person").click()
        page.get_by_role("link", name="API documentation").click()
        expect(page).to_have_url(f"{api.url}/api/docs")
        page.get_by_role("button", name="Authorize").first.click()
        page.locator("#oauth_username").fill(account.email)
        page.locator("#oauth_password").fill(account.password)
        dialog = page.locator(".modal-ux")
        dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
        expect(dialog.get_by_role("heading", name="Authorized")).to_be_visible()
        dialog.get_by_role("button", name="Close").last.click()
        read_me(page, account)
        assert page.evaluate(STORED) == EMPTY

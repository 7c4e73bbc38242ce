"""Writes with a cookie come from a page of ours or of CORS_ORIGINS; another site's page gets nowhere."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from starlette.requests import HTTPConnection

from app.core.errors import ForeignOrigin
from app.core.settings import get_settings
from app.http.cookies import require_own_origin
from tests.support.assertions import assert_problem
from tests.support.cookie_browser import LOGIN, LOGOUT, Browser
from tests.support.oauth_clients import App
from tests.support.servers import PASSWORD, Muster

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

ME = "/api/users/me"
FRIEND = "https://app.example.com"
PUBLIC = "https://muster.example"


@pytest.fixture
def befriended(serve: Callable[..., Muster]) -> Muster:
    return serve(CORS_ORIGINS=FRIEND, PUBLIC_URL=PUBLIC)


FOREIGN = {
    "another site": {"Origin": "https://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "another host that begins like a friend's": {"Origin": f"{FRIEND}.evil.example"},
    "another scheme": {"Origin": FRIEND.replace("https:", "http:")},
    "a sandboxed frame": {"Origin": "null"},
    "empty": {"Origin": ""},
    "two": {"Origin": f"{FRIEND}, {FRIEND}"},
    "a friend's with a slash at the end": {"Origin": f"{FRIEND}/"},
    "says nothing": {},
    "only Referer": {"Referer": f"{FRIEND}/page"},
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "same-site": {"Sec-Fetch-Site": "same-site"},
    "none": {"Sec-Fetch-Site": "none"},
    "foreign Origin, same-origin": {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
}


def test_a_page_of_another_site_cannot_write_sign_in_or_sign_out(befriended: Muster) -> None:
    account = befriended.new_account()
    browser = Browser(befriended, PUBLIC).sign_in(account)
    form = {"username": account.email, "password": account.password}
    for name, headers in FOREIGN.items():
        for method in ("PATCH", "DELETE"):
            answer = browser.call(method, ME, headers=dict(headers), json={"name": "Mallory"})
            assert_problem(answer, 403, "foreign-origin")
        for path in (LOGIN, LOGOUT):
            answer = browser.call("POST", path, headers=dict(headers), data=form)
            assert_problem(answer, 403, "foreign-origin")
            assert "set-cookie" not in answer.headers, name
        assert browser.call("GET", ME, headers=dict(headers)).json()["name"] is None, name
    sent_twice = [("Cookie", browser.cookie), ("Origin", PUBLIC), ("Origin", PUBLIC)]
    assert_problem(befriended.client.patch(ME, headers=sent_twice, json={}), 403, "foreign-origin")


@pytest.mark.parametrize("page", ["as addressed", "public", "friend", "same-origin"])
def test_pages_of_the_service_and_of_allowed_origins_can_write(befriended: Muster, page: str) -> None:
    origin = {"as addressed": befriended.url, "public": PUBLIC, "friend": FRIEND}.get(page)
    headers = {"Origin": origin} if origin else {"Sec-Fetch-Site": "same-origin"}
    account = befriended.new_account()
    browser = Browser(befriended)
    form = {"username": account.email, "password": account.password}
    assert browser.call("POST", LOGIN, headers=dict(headers), data=form).status_code == 204
    changed = browser.call("PATCH", ME, headers=dict(headers), json={"name": "Ada"})
    assert (changed.status_code, changed.json()["name"]) == (200, "Ada")
    assert browser.call("POST", LOGOUT, headers=dict(headers)).status_code == 204


def test_a_page_of_an_allowed_origin_can_neither_consent_nor_send_our_forms(befriended: Muster) -> None:
    account, app, browser = befriended.new_account(), App(befriended), Browser(befriended, FRIEND)
    browser.cookie = account.cookie()
    assert browser.call("PATCH", ME, json={"name": "Ada"}).status_code == 200
    consent, form = app.request(), {"decision": "continue", "username": account.email, "password": account.password}
    answer = browser.call("POST", consent.replace("/authorize", "/api/auth/authorization"), json={"consent": True})
    assert_problem(answer, 403, "foreign-origin")
    for path in (consent, "/sign-in", "/devices/sign-out-others", "/sign-out"):
        assert browser.call("POST", path, data=form).status_code == 403, path
    assert befriended.sql("SELECT * FROM refresh_token WHERE generation = 0") == []
    another_of_our_addresses = {"Origin": FRIEND, "Sec-Fetch-Site": "same-origin"}
    assert app.received(browser.call("POST", consent, headers=another_of_our_addresses, data=form))["code"]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://evil.example", "http://muster.example", ""])
def test_in_production_the_host_that_a_request_names_is_not_ours(origin: str) -> None:
    update = {"environment": "production", "public_url": PUBLIC, "cors_origins": (FRIEND,)}
    settings = get_settings().model_copy(update=update)

    def allowed(origin: str, host: str) -> bool:
        headers = [(b"host", host.encode()), (b"origin", origin.encode())]
        scope = {"type": "http", "scheme": "http", "headers": headers}
        try:
            require_own_origin(HTTPConnection(scope), settings)
        except ForeignOrigin:
            return False
        return True

    assert not allowed(origin, origin.partition("://")[2])
    assert allowed(PUBLIC, "10.0.0.7:8000")
    assert allowed(FRIEND, "muster.example")


@pytest.mark.parametrize("page", ["register", "forgot-password", "reset-password", "verify-email", "sign-in"])
def test_a_form_of_another_site_changes_nothing(muster: Muster, page: str) -> None:
    email = f"{uuid4().hex}@example.com"
    form = {"email": email, "username": email, "password": PASSWORD, "token": "x", "new_password": PASSWORD}
    for name in ("another site", "says nothing", "cross-site"):
        answer = Browser(muster).call("POST", f"/{page}", headers=dict(FOREIGN[name]), data=form)
        assert (answer.status_code, "another site" in answer.text) == (403, True)
    assert muster.sent_mails(email) == []

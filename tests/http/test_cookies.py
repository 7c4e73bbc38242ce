"""The cookie transport: signing in and out, renewal while it is used, and no fallback from a header to it (B5)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import pytest

from app.http.cookies import own_cookies
from app.models.base import utcnow
from tests.support.assertions import assert_limited, assert_problem
from tests.support.concurrency import at_once
from tests.support.cookie_browser import LOGIN, LOGOUT, Browser, cookie_of, let_pass
from tests.support.servers import Account, Muster, claims_of
from tests.support.sessions import make_older, row_of

pytestmark = pytest.mark.one_database

ME = "/api/users/me"


def test_signing_in_gives_a_cookie_that_ends_with_the_session_and_nothing_else(muster: Muster) -> None:
    account = muster.new_account()
    browser = Browser(muster)
    answer = browser.log_in(account, device="Ada's laptop")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    cookie = cookie_of(answer)
    claims, row = claims_of(cookie["value"]), row_of(muster, browser.token)
    month = timedelta(days=30).total_seconds()
    assert cookie == {
        "name": "muster",
        "value": browser.token.access,
        "path": "/",
        "max-age": f"{month:.0f}",
        "httponly": "True",
        "samesite": "Lax",
    }
    assert claims["exp"] - claims["iat"] == month
    assert (row.device, row.client_id) == ("Ada's laptop", "browser")
    me = browser.call("GET", ME)
    assert (me.status_code, me.json()["email"]) == (200, account.email)
    assert "set-cookie" not in me.headers


@pytest.mark.parametrize(
    "form",
    [{}, {"username": "a@example.com"}, {"password": "p"}, {"username": "", "password": "p"}],
    ids=["empty", "username", "password", "blank"],
)
def test_an_incomplete_form_is_a_problem(muster: Muster, form: dict[str, str]) -> None:
    assert_problem(Browser(muster).call("POST", LOGIN, data=form), 400, "bad-request")


def test_wrong_credentials_get_the_same_response_for_every_account(muster: Muster) -> None:
    account, nobody = muster.new_account(), Account(muster, "nobody@example.com", "harbor-violet-tandem")
    account.password = nobody.password
    wrong, unknown = Browser(muster).log_in(account), Browser(muster).log_in(nobody)
    assert_problem(wrong, 400, "invalid-credentials")
    assert wrong.json() == unknown.json()
    assert "set-cookie" not in wrong.headers
    assert account.password not in wrong.text


def test_signing_in_again_ends_the_session_that_the_browser_had(muster: Muster) -> None:
    account = muster.new_account()
    browser, other = Browser(muster).sign_in(account), Browser(muster).sign_in(account)
    before = browser.cookie
    wrong = browser.call("POST", LOGIN, data={"username": account.email, "password": "harbor-violet-tandem"})
    assert_problem(wrong, 400, "invalid-credentials")
    assert browser.call("GET", ME).status_code == 200, "a wrong password ends nothing"
    browser.sign_in(account)
    assert browser.call("GET", ME).status_code == 200
    assert other.call("GET", ME).status_code == 200
    browser.cookie = before
    assert_problem(browser.call("GET", ME), 401, "invalid-token")


def test_signing_out_ends_the_session_and_removes_the_cookie(muster: Muster) -> None:
    account = muster.new_account()
    browser, other = Browser(muster).sign_in(account), Browser(muster).sign_in(account)
    before = browser.cookie
    answer = browser.call("POST", LOGOUT)
    assert answer.status_code == 204
    assert "content-type" not in answer.headers
    assert (cookie_of(answer)["value"], answer.headers["set-cookie"].count("Max-Age=0")) == ("", 1)
    browser.cookie = before
    assert_problem(browser.call("GET", ME), 401, "invalid-token")
    assert browser.call("POST", LOGOUT).status_code == 204, "a dead cookie"
    assert Browser(muster).call("POST", LOGOUT).status_code == 204, "none"
    assert other.call("GET", ME).status_code == 200


@pytest.mark.parametrize("cookie", ["muster=", "muster=made.up.token", "muster=%00", "muster=a; muster=b"])
def test_a_bad_cookie_is_a_401(muster: Muster, cookie: str) -> None:
    browser = Browser(muster)
    browser.cookie = cookie
    assert_problem(browser.call("GET", ME), 401, "invalid-token")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("Bearer made.up.token", "invalid-token"),
        ("Bearer", "invalid-token"),
        ("Bearer a b", "invalid-token"),
        ("Basic YTpi", "unauthenticated"),
        ("", "unauthenticated"),
    ],
    ids=["made up", "nothing", "two", "other scheme", "empty"],
)
def test_a_header_never_falls_back_to_the_cookie(muster: Muster, header: str, problem: str) -> None:
    browser = Browser(muster).sign_in(muster.new_account())
    assert_problem(browser.call("GET", ME, headers={"Authorization": header}), 401, problem)


def test_only_cookies_of_ours_reach_the_parser_and_none_with_quotes(muster: Muster) -> None:
    """Python's own parser takes quadratic time to unquote in releases with CVE-2024-7592."""
    quoted = b'"' + b'\\"' * 15_000 + b'"'
    sent = b'theirs=%b; muster="a"; muster=token;muster-sign-in=state; musterly; __Host-muster=b' % quoted
    kept = b"muster=token; muster-sign-in=state; __Host-muster=b"
    assert own_cookies([(b"cookie", sent), (b"x-a", sent)]) == [(b"cookie", kept), (b"x-a", sent)]
    browser = Browser(muster).sign_in(muster.new_account())
    cookies = f"theirs={quoted.decode()}; {browser.cookie}"
    assert muster.client.get(ME, headers={"Cookie": cookies}).status_code == 200


def test_a_good_header_wins_over_the_cookie(muster: Muster) -> None:
    browser, tokens = Browser(muster).sign_in(muster.new_account()), (other := muster.new_account()).sign_in()
    assert browser.call("GET", ME, headers=tokens.bearer).json()["email"] == other.email
    changed = browser.call("PATCH", ME, headers=tokens.bearer, json={"name": "Ada"})
    assert changed.status_code == 200, "a header needs no Origin: no site can send one for its visitor"


@pytest.mark.both_databases
@pytest.mark.parametrize(("method", "hours"), [("GET", 16 * 24), ("PATCH", 16 * 24), ("GET", 25)])
def test_a_cookie_that_is_a_day_old_is_renewed_by_its_first_use(muster: Muster, method: str, hours: int) -> None:
    browser = Browser(muster).sign_in(muster.new_account())
    first = browser.token
    let_pass(muster, browser, timedelta(hours=hours))
    answer = browser.call(method, ME, json={} if method == "PATCH" else None)
    assert answer.status_code == 200
    assert cookie_of(answer)["max-age"] == str(30 * 86_400)
    assert browser.token != first
    claims = claims_of(browser.token.access)
    assert claims["sid"] == claims_of(first.access)["sid"]
    assert abs(claims["exp"] - (utcnow() + timedelta(days=30)).timestamp()) < 60
    [session] = browser.call("GET", f"{ME}/sessions").json()
    assert abs(datetime.fromisoformat(session["last_used_at"]) - utcnow()) < timedelta(minutes=1)
    assert datetime.fromisoformat(session["expires_at"]).timestamp() - claims["exp"] < 2
    let_pass(muster, browser, timedelta(hours=23))
    assert "set-cookie" not in browser.call("GET", ME).headers, "not a day old"


@pytest.mark.both_databases
def test_ten_concurrent_uses_renew_the_cookie_and_all_succeed(muster: Muster) -> None:
    browser = Browser(muster).sign_in(muster.new_account())
    let_pass(muster, browser, timedelta(days=16))
    headers = {"Cookie": browser.cookie, "Origin": muster.url}
    answers = at_once(
        *[
            partial(muster.client.request, method, ME, headers=headers, json={} if method == "PATCH" else None)
            for method in ("GET", "PATCH") * 5
        ]
    )
    assert [answer.status_code for answer in answers] == [200] * 10
    for answer in answers:
        browser.cookie = answer.headers["set-cookie"].partition(";")[0]
        assert browser.call("GET", ME).status_code == 200


def test_a_cookie_is_renewed_even_if_the_request_is_refused(muster: Muster) -> None:
    browser = Browser(muster).sign_in(muster.new_account())
    let_pass(muster, browser, timedelta(days=16))
    answer = browser.call("PATCH", ME, json={"name": 7})
    assert_problem(answer, 422, "invalid")
    assert cookie_of(answer)["max-age"] == str(30 * 86_400)


@pytest.mark.both_databases
def test_a_cookie_never_outlives_the_absolute_limit(serve: Callable[..., Muster]) -> None:
    muster = serve(REFRESH_IDLE_TTL="P30D", REFRESH_ABSOLUTE_TTL="P40D")
    browser = Browser(muster).sign_in(muster.new_account())
    let_pass(muster, browser, timedelta(days=20))
    for left in (20, 1):
        assert abs(int(cookie_of(browser.call("GET", ME))["max-age"]) - left * 86_400) < 60
        let_pass(muster, browser, timedelta(days=19) if left == 20 else timedelta(hours=23))
    assert "set-cookie" not in browser.call("GET", ME).headers, "there is nothing left to gain"
    let_pass(muster, browser, timedelta(days=2))
    assert browser.call("GET", ME).status_code == 401


def test_a_stolen_bearer_token_is_never_renewed_as_a_cookie(muster: Muster) -> None:
    tokens = muster.new_account().tokens()
    browser = Browser(muster)
    browser.cookie = f"muster={tokens.access}"
    answer = browser.call("GET", ME)
    assert (answer.status_code, answer.headers.get("set-cookie")) == (200, None)


@pytest.mark.both_databases
def test_an_idle_session_expires(muster: Muster) -> None:
    browser = Browser(muster).sign_in(muster.new_account())
    make_older(muster, browser.token, age=timedelta(days=31))
    assert_problem(browser.call("GET", ME), 401, "invalid-token")


def test_a_changed_password_gives_the_browser_a_new_cookie_and_no_tokens(muster: Muster) -> None:
    account = muster.new_account()
    browser, other = Browser(muster).sign_in(account), Browser(muster).sign_in(account)
    before = browser.cookie
    body = {"current_password": account.password, "new_password": "copper-lantern-meadow"}
    answer = browser.call("PUT", f"{ME}/password", json=body)
    assert (answer.status_code, answer.content) == (204, b"")
    assert browser.call("GET", ME).status_code == 200
    assert other.call("GET", ME).status_code == 401
    browser.cookie = before
    assert browser.call("GET", ME).status_code == 401


def test_deleting_the_account_removes_the_cookie(muster: Muster) -> None:
    account = muster.new_account()
    browser = Browser(muster).sign_in(account)
    answer = browser.call("DELETE", ME, json={"current_password": account.password})
    assert (answer.status_code, cookie_of(answer)["value"]) == (204, "")


def test_both_ways_to_sign_in_share_one_limit(serve: Callable[..., Muster]) -> None:
    muster = serve(LIMIT_LOGIN_IP="3/minute")
    account = muster.new_account()
    for _ in range(2):
        Browser(muster).sign_in(account)
    account.sign_in()
    assert_limited(Browser(muster).log_in(account), "request", "q=3;w=60")
    assert_limited(muster.token(grant_type="password", username="a@b.de", password="x"), "request", "q=3;w=60")


def test_in_production_the_cookie_is_secure_and_bound_to_the_host(serve: Callable[..., Muster]) -> None:
    muster = serve(
        ENVIRONMENT="production", PUBLIC_URL="https://muster.example", MAIL_URL="smtp://localhost:1?tls=none"
    )
    browser = Browser(muster, "https://muster.example")
    answer = browser.log_in(muster.new_account())
    cookie = cookie_of(answer)
    assert (cookie["name"], cookie["secure"], cookie["path"]) == ("__Host-muster", "True", "/")
    assert "domain" not in cookie
    assert browser.call("GET", ME).status_code == 200
    browser.cookie = browser.cookie.removeprefix("__Host-")
    assert_problem(browser.call("GET", ME), 401, "unauthenticated")
    for path in ("/api/users/me", "/sign-in", "/nowhere"):
        assert muster.client.get(path).headers["strict-transport-security"] == "max-age=31536000"
    assert cookie["value"] not in muster.log

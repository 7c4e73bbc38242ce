"""The pages' sign-in at a real identity provider, as a browser without JavaScript goes through it."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from html import unescape
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from app.core.settings import get_settings
from app.http.cookies import set_cookie
from tests.support.cookie_browser import Browser as CookieBrowser
from tests.support.databases import fresh_database
from tests.support.html import ELSEWHERE
from tests.support.oauth_clients import App
from tests.support.oidc_provider import CLIENT, PHONE, OidcProvider, secret_of
from tests.support.servers import Muster, Tokens

pytestmark = pytest.mark.one_database

LOGIN = "/api/auth/oidc/login"
KEPT = "muster-sign-in"
REFUSED = "/sign-in?problem=sign-in-refused"
STALE = "/sign-in?problem=sign-in-stale"
FAILED = "/sign-in?problem=sign-in-failed"


@pytest.fixture(scope="module")
def served(provider: OidcProvider, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance with local accounts as well as the provider."""
    settings = {"OIDC_ISSUER": provider.issuer, "OIDC_CLIENT_ID": f"{CLIENT},{PHONE}"}
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database("sqlite", folder, postgres))
        muster = Muster(url, folder, OIDC_CLIENT_SECRET=secret_of(CLIENT), **settings)
        muster.settings["PUBLIC_URL"] = muster.url
        yield stack.enter_context(muster)


@pytest.fixture
def browser(served: Muster) -> Iterator[httpx.Client]:
    with served.another_client() as client:
        yield client


def begin(browser: httpx.Client, **query: str) -> str:
    """Start the sign-in, and return the address at the provider to which the browser is sent."""
    answer = browser.get(LOGIN, params=query)
    assert (answer.status_code, answer.headers["cache-control"]) == (303, "no-store")
    return answer.headers["location"]


def sign_in(browser: httpx.Client, provider: OidcProvider, name: str, **query: str) -> httpx.Response:
    return browser.get(provider.visit(begin(browser, **query), name))


def changed(url: str, **changes: str) -> str:
    return str(httpx.URL(url).copy_merge_params(changes))


def assert_login_ended(browser: httpx.Client, answer: httpx.Response, where: str) -> None:
    """The browser is sent to a page that says why; the login is over, and no session began."""
    assert (answer.status_code, answer.headers["location"]) == (303, where), answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert [cookie.split("=")[0] for cookie in answer.headers.get_list("set-cookie")] in ([KEPT], [])
    assert "muster" not in browser.cookies
    assert 'role="alert"' in browser.get(where).text


# ---- To the provider and back ----


def test_the_request_has_state_nonce_and_a_challenge_of_its_own(
    served: Muster, browser: httpx.Client, provider: OidcProvider
) -> None:
    first, second = (browser.get(LOGIN) for _ in range(2))
    asked, again = (parse_qs(urlsplit(answer.headers["location"]).query) for answer in (first, second))
    assert first.headers["location"].startswith(provider.discovery()["authorization_endpoint"])
    assert (asked["response_type"], asked["client_id"]) == (["code"], [CLIENT])
    assert asked["redirect_uri"] == [f"{served.url}/api/auth/oidc/callback"]
    assert (asked["scope"], asked["code_challenge_method"]) == (["openid email profile"], ["S256"])
    for name in ("state", "nonce", "code_challenge"):
        assert len(asked[name][0]) >= 32
        assert asked[name] != again[name]
    ((name, kept),) = SimpleCookie(first.headers["set-cookie"]).items()
    assert (name, kept["max-age"], kept["path"]) == (KEPT, "600", "/")
    assert kept["httponly"]
    assert kept["samesite"] == "Lax"


def test_in_production_no_other_host_can_set_the_cookie() -> None:
    settings = get_settings().model_copy(update={"environment": "production"})
    cookie = set_cookie(settings, "x", 600, "-sign-in")
    assert cookie == "__Host-muster-sign-in=x; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"


def test_a_person_signs_in_and_has_the_same_account_the_next_time(
    served: Muster, browser: httpx.Client, provider: OidcProvider
) -> None:
    name = f"Ada-{uuid4().hex}"
    answer = sign_in(browser, provider, name, next="/operations?type=sell")
    assert (answer.status_code, answer.headers["location"]) == (303, "/operations?type=sell")
    assert answer.headers["cache-control"] == "no-store"
    assert KEPT not in browser.cookies
    me = browser.get("/api/users/me").json()
    assert (me["email"], me["name"], me["role"]) == (f"{name}@provider.example".lower(), name, "user")
    assert me["is_verified"] is True
    (session,) = browser.get("/api/users/me/sessions").json()
    assert (session["client_id"], session["current"]) == ("browser", True)
    assert browser.get("/operations").status_code == 200
    with served.another_client() as elsewhere:
        sign_in(elsewhere, provider, name)
        assert elsewhere.get("/api/users/me").json()["id"] == me["id"]
        sign_in(elsewhere, provider, name)
        assert len(elsewhere.get("/api/users/me/sessions").json()) == 2, "the session that a browser had ends"
    code = parse_qs(answer.request.url.query.decode())["code"][0]
    assert code not in served.log


def test_a_bearer_token_of_the_provider_belongs_to_the_same_person(
    served: Muster, browser: httpx.Client, provider: OidcProvider
) -> None:
    name = f"phone-{uuid4().hex}"
    by_phone = served.me(provider.sign_in(name))
    assert by_phone.status_code == 200, by_phone.text
    sign_in(browser, provider, name)
    assert browser.get("/api/users/me").json() == by_phone.json()


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=ascii)
def test_signing_in_never_leads_to_another_site(browser: httpx.Client, provider: OidcProvider, elsewhere: str) -> None:
    assert sign_in(browser, provider, "ada", next=elsewhere).headers["location"] == "/operations"


def test_a_next_address_that_is_too_long_is_dropped(browser: httpx.Client, provider: OidcProvider) -> None:
    begin(browser, next=f"/operations?figi={'x' * 2000}")
    assert len(browser.cookies[KEPT]) < 1000
    way = f"/operations?figi={'x' * 900}"
    assert sign_in(browser, provider, "ada", next=way).headers["location"] == way


def test_the_sign_in_page_links_to_the_provider(muster: Muster, browser: httpx.Client) -> None:
    page = browser.get("/sign-in", params={"next": "/devices"}).text
    assert f'href="{LOGIN}?next=/devices"' in page
    assert 'name="password"' in page
    assert LOGIN not in muster.client.get("/sign-in").text
    assert muster.client.get(LOGIN).status_code == 404
    assert "alert" not in page
    odd = browser.get("/sign-in", params={"problem": "<b>odd</b>"})
    assert "You could not be signed in. Try again." in odd.text
    assert "odd" not in odd.text


def test_a_wrong_password_shows_the_form_and_the_way_to_the_provider_again(served: Muster) -> None:
    form = {"username": "nobody@example.com", "password": "not-it-at-all", "next": "/devices", "prompt": "login"}
    answer = CookieBrowser(served).call("POST", "/sign-in", data=form)
    assert answer.status_code == 400
    link = re.search(rf'href="({LOGIN}[^"]*)"', answer.text)
    assert link is not None
    assert unescape(link[1]) == f"{LOGIN}?next=/devices&prompt=login&login_hint=nobody%40example.com"


def test_an_app_has_the_person_sign_in_afresh_at_the_provider_and_gets_its_code(
    served: Muster, browser: httpx.Client, provider: OidcProvider
) -> None:
    app, name = App(served), f"ada-{uuid4().hex}"
    hint = f"{name}@provider.example"
    sent = browser.get(app.request(prompt="login", login_hint=hint)).headers["location"]
    (link,) = re.findall(f'href="({LOGIN}[^"]*)"', browser.get(sent).text)
    asked = browser.get(unescape(link)).headers["location"]
    query = parse_qs(urlsplit(asked).query)
    assert (query["prompt"], query["login_hint"]) == (["login"], [hint])
    back = browser.get(provider.visit(asked, name)).headers["location"]
    assert back == app.request(login_hint=hint)
    assert hint in browser.get(back).text
    answer = browser.post(back, data={"decision": "continue"}, headers={"Origin": served.url})
    tokens = Tokens(app.exchange(app.received(answer)["code"]).json())
    assert served.me(tokens).json()["email"] == hint


# ---- Failed sign-ins ----


def test_canceling_at_the_provider_shows_our_own_message(browser: httpx.Client, provider: OidcProvider) -> None:
    back = provider.visit(begin(browser), None)
    assert "The+person" in back
    assert_login_ended(browser, browser.get(back), REFUSED)
    assert "The person" not in browser.get(REFUSED).text


def test_a_response_to_another_browser_is_stale(served: Muster, browser: httpx.Client, provider: OidcProvider) -> None:
    """Login CSRF: a visitor's browser is led to the response to an attacker's sign-in."""
    back = provider.visit(begin(browser), "mallory")
    with served.another_client() as victim:
        assert_login_ended(victim, victim.get(back), STALE)  # that has no cookie at all
        begin(victim)
        assert_login_ended(victim, victim.get(back), STALE)
    assert_login_ended(browser, browser.get(changed(back, state=f"{'A' * 40}")), STALE)
    assert_login_ended(browser, browser.get(back), STALE)  # the attempt before took the cookie


@pytest.mark.parametrize("kept", ["", "A" * 40, "é", "{}x"], ids=ascii)
def test_a_forged_login_cookie_is_stale(browser: httpx.Client, provider: OidcProvider, kept: str) -> None:
    back = provider.visit(begin(browser), "ada")
    cookie = f"{KEPT}={kept.format(browser.cookies[KEPT])}"
    browser.cookies.clear()
    assert_login_ended(browser, browser.get(back, headers=[(b"Cookie", cookie.encode())]), STALE)


def test_an_authorization_response_can_be_used_once(browser: httpx.Client, provider: OidcProvider) -> None:
    back = provider.visit(begin(browser), "ada")
    kept = browser.cookies[KEPT]
    assert browser.get(back).headers["location"] == "/operations"
    browser.cookies.clear()
    assert_login_ended(browser, browser.get(back), STALE)
    browser.cookies.set(KEPT, kept)  # even if the browser had kept it: the provider takes a code once
    assert_login_ended(browser, browser.get(back), FAILED)


def test_a_code_issued_to_someone_else_is_rejected(
    served: Muster, browser: httpx.Client, provider: OidcProvider
) -> None:
    with served.another_client() as mallory:
        theirs = parse_qs(urlsplit(provider.visit(begin(mallory), "mallory")).query)["code"][0]
    back = provider.visit(begin(browser), "ada")
    assert_login_ended(browser, browser.get(changed(back, code=theirs)), FAILED)  # PKCE: another verifier
    back = provider.visit(changed(begin(browser), client_id="stranger"), "ada")
    assert_login_ended(browser, browser.get(back), FAILED)  # another client's
    assert_login_ended(browser, browser.get("/api/auth/oidc/callback"), STALE)


@pytest.mark.parametrize(
    "hostile", ["%00", "%ff", "%ed%a0%80", "a&code=b", "x" * 9000, "%0d%0aSet-Cookie:a=b"], ids=lambda text: text[:9]
)
def test_a_malformed_callback_breaks_nothing(browser: httpx.Client, provider: OidcProvider, hostile: str) -> None:
    assert browser.get(f"{LOGIN}?next=/{hostile}").headers["location"].startswith(provider.issuer)
    assert_login_ended(browser, browser.get(f"/api/auth/oidc/callback?state={hostile}&code=x"), STALE)
    state = parse_qs(urlsplit(begin(browser)).query)["state"][0]
    answer = browser.get(f"/api/auth/oidc/callback?state={state}&iss={provider.issuer}&code={hostile}")
    assert_login_ended(browser, answer, FAILED)


def test_a_response_with_another_nonce_or_of_another_issuer_fails(
    browser: httpx.Client, provider: OidcProvider
) -> None:
    back = provider.visit(changed(begin(browser), nonce="another-nonce-of-the-tests"), "ada")
    assert_login_ended(browser, browser.get(back), FAILED)
    for issuer in ("https://evil.example", ""):
        back = provider.visit(begin(browser), "ada")
        assert_login_ended(browser, browser.get(changed(back, iss=issuer)), FAILED)
    back = provider.visit(begin(browser), "ada")
    assert_login_ended(browser, browser.get(str(httpx.URL(back).copy_remove_param("iss"))), FAILED)


def test_an_address_that_is_taken_links_nothing(served: Muster, browser: httpx.Client, provider: OidcProvider) -> None:
    owner = served.new_account(is_verified=True)
    answer = sign_in(browser, provider, owner.email)
    assert_login_ended(browser, answer, "/sign-in?problem=email-taken")
    assert "Another account here has your e-mail address." in browser.get(answer.headers["location"]).text
    assert served.me(owner.sign_in()).status_code == 200


def test_a_disabled_account_cannot_sign_in(served: Muster, browser: httpx.Client, provider: OidcProvider) -> None:
    name = f"out-{uuid4().hex}"
    sign_in(browser, provider, name)
    served.sql('UPDATE "user" SET is_active = :no WHERE email = :email', no=False, email=f"{name}@provider.example")
    browser.cookies.clear()
    assert_login_ended(browser, sign_in(browser, provider, name), "/sign-in?problem=invalid-token")


def test_a_page_reports_that_the_provider_is_unavailable(browser: httpx.Client, provider: OidcProvider) -> None:
    back = provider.visit(begin(browser), "ada")
    with provider.stopped():
        assert_login_ended(browser, browser.get(back), "/sign-in?problem=provider-unavailable")
    assert sign_in(browser, provider, "ada").headers["location"] == "/operations"

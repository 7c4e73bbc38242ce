"""Authorization codes with PKCE, one request after the other (rows P1 to P3, P5, P6, P8)."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from html import unescape
from uuid import UUID

import httpx
import pytest

from app.core.crypto import TokenSigner
from tests.support.assertions import assert_oauth_error
from tests.support.cookie_browser import LOGIN, Browser, signed_in
from tests.support.databases import SECRET_KEY
from tests.support.oauth_clients import REDIRECT_URI, App
from tests.support.servers import PASSWORD, Account, Muster, Tokens, claims_of
from tests.support.sessions import (
    BEYOND_GRACE,
    assert_lives,
    assert_signed_out,
    is_refused,
    make_older,
    refreshed,
    row_of,
    session_of,
    thefts_mailed,
)

AT_ONCE, DEAD = timedelta(seconds=1), timedelta(seconds=61)
METADATA = "/.well-known/oauth-authorization-server"
FRIEND = "https://friend.example"  # one of CORS_ORIGINS


@pytest.fixture
def ada(muster: Muster) -> Account:
    return muster.new_account()


@pytest.fixture
def app(muster: Muster) -> App:
    return App(muster)


def state_of(muster: Muster, code: str) -> tuple[int, str | None]:
    row = row_of(muster, session_of(code))
    return row.generation, row.revoke_reason


# ---- The request: P1 ----


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"scope": "me nonsense"}, "invalid_scope"),
        ({"scope": "users:write"}, "invalid_scope"),
    ],
    ids=str,
)
def test_mistakes_of_a_client_are_reported_to_it_by_redirect(
    app: App, ada: Account, changes: dict[str, str | None], error: str
) -> None:
    browser = signed_in(ada)
    for answer in (browser.call("GET", app.request(**changes)), _continue(browser, app.request(**changes))):
        received = app.received(answer)
        assert (received["error"], received["state"], received["iss"]) == (error, app.state, issuer(app.muster))
        assert received["error_description"].isascii()
        assert answer.headers["cache-control"] == "no-store"


def _continue(browser: Browser, address: str) -> httpx.Response:
    return browser.call("POST", address, data={"decision": "continue"})


def issuer(muster: Muster) -> str:
    return str(muster.client.get(METADATA).json()["issuer"])


@pytest.mark.one_database
@pytest.mark.parametrize("name", ["response_type", "state", "scope", "code_challenge", "code_challenge_method"])
def test_a_repeated_parameter_is_an_error(app: App, ada: Account, name: str) -> None:
    address = app.request(scope="me")
    value = address.partition(f"{name}=")[2].partition("&")[0]
    received = app.received(signed_in(ada).call("GET", f"{address}&{name}={value}"))
    assert (received["error"], received.get("state")) == ("invalid_request", None if name == "state" else app.state)


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"client_id": "a\0b"},
        {"redirect_uri": None},
        {"redirect_uri": REDIRECT_URI + "/"},
        {"redirect_uri": REDIRECT_URI + "#top"},
        {"redirect_uri": REDIRECT_URI + "?more"},
        {"redirect_uri": REDIRECT_URI[:-1]},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": "javascript:alert(1)//"},
        "&client_id=x",
        "&redirect_uri=x",
    ],
    ids=str,
)
def test_a_request_without_a_registered_client_is_a_page_and_never_a_redirect(
    app: App, ada: Account, changes: dict[str, str | None] | str
) -> None:
    address = app.request() + changes if isinstance(changes, str) else app.request(**changes)
    for answer in (signed_in(ada).call("GET", address), _continue(signed_in(ada), address)):
        assert (answer.status_code, "location" in answer.headers) == (400, False)
        assert "This app is not known here" in answer.text


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("registered", "sent"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:51234/cb"),
        ("http://[::1]/cb", "http://[::1]:51234/cb"),
        ("https://app.example.com/cb?tenant=1", "https://app.example.com/cb?tenant=1"),
    ],
)
def test_the_redirect_goes_to_the_uri_that_was_sent(muster: Muster, ada: Account, registered: str, sent: str) -> None:
    app = App(muster, redirect_uri=registered)
    answer = _continue(signed_in(ada), app.request(redirect_uri=sent))
    assert answer.headers["location"].startswith(f"{sent}{'&' if '?' in sent else '?'}code=")
    code = answer.headers["location"].partition("code=")[2].partition("&")[0]
    assert app.exchange(code, redirect_uri=sent).status_code == 200


@pytest.mark.one_database
def test_the_code_of_an_app_on_this_device_is_bound_to_the_port_that_it_used(muster: Muster, ada: Account) -> None:
    app = App(muster, redirect_uri="http://127.0.0.1/cb")
    answer = _continue(signed_in(ada), app.request(redirect_uri="http://127.0.0.1:1/cb"))
    code = answer.headers["location"].partition("code=")[2].partition("&")[0]
    assert is_refused(app.exchange(code, redirect_uri="http://127.0.0.1:2/cb"))


# ---- The page ----


def test_the_page_names_the_app_the_account_and_the_scopes(app: App, ada: Account) -> None:
    answer = signed_in(ada).call("GET", app.request(scope="me operations:read users:write"))
    text = unescape(answer.text)
    assert answer.status_code == 200
    assert all(words in text for words in ("Ledger", ada.email, "Continue", "Cancel", "Use another account"))
    assert "Read your own operations" in text
    assert "Change other accounts" not in text  # the role does not have it
    everything = unescape(signed_in(ada).call("GET", app.request()).text)
    assert "Read and write chat messages" in everything
    headers = answer.headers
    assert "no-store" in headers["cache-control"]
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "form-action 'self' com.example.ledger:;" in headers["content-security-policy"]


@pytest.mark.one_database
def test_a_signed_out_browser_is_led_to_the_sign_in_page_and_back(app: App, ada: Account) -> None:
    browser, address = Browser(app.muster), app.request(scope="me", login_hint=ada.email)
    for sent in (browser.call("GET", address), _continue(browser, address)):
        assert sent.headers["location"].startswith("/sign-in?next=%2Fauthorize%3F")
    page = browser.call("GET", sent.headers["location"])
    assert f'value="{ada.email}"' in page.text
    wanted = unescape(page.text.partition('name="next" value="')[2].partition('"')[0])
    form = {"username": ada.email, "password": PASSWORD, "next": wanted}
    back = browser.call("POST", "/sign-in", data=form).headers["location"]
    assert back == wanted == address
    assert ada.email in unescape(browser.call("GET", back).text)


@pytest.mark.parametrize("prompt", ["login", "consent login"])
def test_a_fresh_sign_in_is_required_once(app: App, ada: Account, prompt: str) -> None:
    browser = signed_in(ada)
    for each in (browser, Browser(app.muster)):
        sent = each.call("GET", app.request(prompt=prompt)).headers["location"]
        assert sent.startswith("/sign-in?next=")
        assert sent.endswith("&prompt=login")
    assert "prompt" not in unescape(
        browser.call("GET", sent).text.partition('name="next" value="')[2].partition('"')[0]
    )
    assert app.received(browser.call("GET", app.request(prompt=prompt, scope="nonsense")))["error"] == "invalid_scope"
    assert browser.call("GET", app.request(prompt="consent")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_browser_whose_session_has_ended_is_led_to_the_sign_in_page_and_back(
    app: App, ada: Account, method: str
) -> None:
    browser = signed_in(ada)
    app.muster.sql('UPDATE "user" SET auth_epoch = auth_epoch + 1 WHERE email = :email', email=ada.email)
    sent = browser.call(method, app.request(), data={"decision": "continue"} if method == "POST" else None)
    page = browser.call("GET", sent.headers["location"])
    assert page.status_code == 200
    assert "Your session has ended. Sign in again." in page.text
    assert unescape(page.text).count(app.request()) == 1


def test_a_person_who_signed_in_after_the_page_was_shown_is_asked_again(app: App, ada: Account) -> None:
    bob = signed_in(app.muster.new_account())
    for decision in ("continue", "cancel"):
        answer = bob.call("POST", app.request(), data={"decision": decision, "email": ada.email})
        assert (answer.status_code, answer.headers["location"]) == (303, app.request())
    assert f'name="email" value="{ada.email}"' in signed_in(ada).call("GET", app.request()).text
    answer = signed_in(ada).call("POST", app.request(), data={"decision": "continue", "email": ada.email})
    assert app.received(answer)["code"]


def test_cancel_is_access_denied(app: App, ada: Account) -> None:
    received = app.decide(signed_in(ada), "cancel")
    assert (received["error"], received["state"], received["iss"]) == ("access_denied", app.state, issuer(app.muster))


@pytest.mark.one_database
def test_only_a_page_of_ours_and_a_cookie_can_consent(app: App, ada: Account) -> None:
    browser, body = signed_in(ada), {"decision": "continue"}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        assert browser.call("POST", app.request(), data=body, headers=headers).status_code == 403
    same = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}  # from a page with the policy no-referrer
    assert browser.call("POST", app.request(), data=body, headers=same).status_code == 303
    api = app.request().replace("/authorize", "/api/auth/authorization")
    tokens, ours = ada.tokens(), {"Origin": app.muster.url}
    for headers in (tokens.bearer, {"Cookie": f"muster={tokens.access}", **ours}):  # also in the cookie's place
        answer = app.muster.client.post(api, json={"consent": True}, headers=headers)
        assert answer.status_code == 401  # a token with the scope me alone would give itself all others
    assert app.muster.client.post(api, json={"consent": True}, headers={"Cookie": ada.cookie(), **ours}).is_success


# ---- The exchange: P2 ----


def test_a_code_is_exchanged_for_a_pair_that_works(app: App, ada: Account) -> None:
    received = app.decide(signed_in(ada), scope="me users:write")
    assert set(received) == {"code", "state", "iss"}
    assert (received["state"], received["iss"]) == (app.state, issuer(app.muster))
    answer = app.exchange(received["code"])
    assert answer.status_code == 200, answer.text
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    tokens = Tokens(answer.json())
    claims = claims_of(tokens.access)
    assert (tokens["scope"], claims["client_id"], claims["gen"]) == ("me", app.id, 1)
    (session,) = [each for each in sessions_of(app.muster, tokens) if each["current"]]
    assert session["device"] == "Ledger, python-httpx"
    assert_lives(app.muster, tokens)


def sessions_of(muster: Muster, tokens: Tokens) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = muster.client.get("/api/users/me/sessions", headers=tokens.bearer).json()
    return listed


def test_the_same_code_again_gives_the_same_successor(app: App, ada: Account) -> None:
    code = app.code(ada)
    first, again = (Tokens(app.exchange(code).json()) for _ in range(2))
    assert first.refresh == again.refresh
    make_older(app.muster, first, age=BEYOND_GRACE)  # beyond the grace, and the response was lost
    third = Tokens(app.exchange(code).json())
    assert (third.refresh == first.refresh, claims_of(third.access)["gen"]) == (False, 2)
    assert_lives(app.muster, third)


def test_a_code_expires_after_a_minute_and_nothing_is_revoked(app: App, ada: Account) -> None:
    code = app.code(ada)
    tokens = Tokens(app.exchange(code).json())
    assert_lives(app.muster, tokens)  # so that the successor was used, too
    make_older(app.muster, tokens, age=DEAD)
    assert is_refused(app.exchange(code))
    assert is_refused(app.exchange(code, code_verifier="x" * 43))
    assert_lives(app.muster, tokens)
    unused = app.code(ada)
    make_older(app.muster, session_of(unused), age=DEAD)
    assert is_refused(app.exchange(unused))
    assert state_of(app.muster, unused) == (0, None)


USES: dict[str, Callable[[Muster, Tokens], object]] = {"access token": Muster.me, "refresh token": refreshed}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_code_whose_successor_was_used_is_theft_after_the_grace(
    app: App, ada: Account, use: Callable[[Muster, Tokens], object]
) -> None:
    other, code = ada.tokens(), app.code(ada)
    tokens = Tokens(app.exchange(code).json())
    use(app.muster, tokens)
    make_older(app.muster, tokens, age=BEYOND_GRACE)
    assert is_refused(app.exchange(code))
    assert_signed_out(app.muster, tokens)
    assert row_of(app.muster, tokens).revoke_reason == "reuse"
    assert thefts_mailed(app.muster, ada) == 1
    assert_lives(app.muster, other)


# ---- Codes with wrong parameters: P3 ----


@pytest.mark.parametrize(
    "change",
    [{"code_verifier": "A" * 43}, {"client_id": "another"}, {"redirect_uri": "com.example.ledger:/elsewhere"}],
    ids=str,
)
@pytest.mark.parametrize("redeemed", [False, True], ids=["new", "redeemed"])
def test_a_valid_code_with_a_wrong_parameter_ends_the_session(
    app: App, ada: Account, change: dict[str, str], redeemed: bool
) -> None:
    code = app.code(ada)
    tokens = [Tokens(app.exchange(code).json())] if redeemed else []
    assert is_refused(app.exchange(code, **change))
    assert is_refused(app.exchange(code))
    assert state_of(app.muster, code)[1] == "reuse"
    assert_signed_out(app.muster, *tokens)
    assert thefts_mailed(app.muster, ada) == 1


def test_a_forged_code_revokes_nothing(app: App, ada: Account) -> None:
    code = app.code(ada)
    session = session_of(code)
    forged = [
        code[:-1] + ("A" if code[-1] != "A" else "Q"),
        TokenSigner(["another key"], "code").sign(session, 0, b""),
        TokenSigner([SECRET_KEY], "refresh").sign(session, 0, b""),
        "A" * 72,
        "not a code",
    ]
    for each in forged:
        assert is_refused(app.exchange(each, code_verifier="x" * 43))
    assert app.exchange(code).status_code == 200


def test_a_code_is_not_accepted_as_a_token_nor_a_token_as_a_code(app: App, ada: Account) -> None:
    code, tokens = app.code(ada), ada.tokens()
    assert is_refused(app.muster.refresh(code))
    assert is_refused(app.exchange(tokens.refresh))
    assert app.muster.client.get("/api/users/me", headers={"Authorization": f"Bearer {code}"}).status_code == 401
    introspector = app.muster.admin().tokens()
    for _ in range(2):  # also once it was redeemed
        state = app.muster.client.post("/api/auth/introspect", data={"token": code}, headers=introspector.bearer)
        assert state.json() == {"active": False}
        assert app.exchange(code).status_code == 200
    assert_lives(app.muster, tokens)


@pytest.mark.parametrize("name", ["code", "redirect_uri", "client_id", "code_verifier"])
def test_a_missing_parameter_revokes_nothing(app: App, ada: Account, name: str) -> None:
    code = app.code(ada)
    changes: dict[str, str | None] = {} if name == "code" else {name: None}
    answer = app.exchange(None if name == "code" else code, **changes)
    assert_oauth_error(answer, 400, "invalid_request")
    assert app.exchange(code).status_code == 200


# ---- Changes between Continue and the exchange: P5 ----


def test_a_code_is_refused_once_the_account_is_disabled_or_its_password_changed(app: App, ada: Account) -> None:
    code, admin = app.code(ada), app.muster.admin().tokens()
    changed = app.muster.client.put(
        "/api/users/me/password",
        json={"current_password": PASSWORD, "new_password": "copper-lantern-meadow"},
        headers=ada.tokens().bearer,
    )
    assert changed.status_code == 200
    assert is_refused(app.exchange(code))
    later = app.code(ada)
    where = f"/api/users/{claims_of(ada.tokens().access)['sub']}"
    assert app.muster.client.patch(where, json={"is_active": False}, headers=admin.bearer).status_code == 200
    assert is_refused(app.exchange(later))


def test_a_code_is_refused_once_its_app_is_removed(app: App, ada: Account) -> None:
    tokens, code, admin = app.sign_in(ada), app.code(ada), app.muster.admin().tokens()
    assert app.muster.client.delete(f"/api/clients/{app.id}", headers=admin.bearer).status_code == 204
    assert is_refused(app.exchange(code))
    assert state_of(app.muster, code) == (0, None)
    assert_lives(app.muster, tokens)


def test_an_unredeemed_code_is_not_shown_as_a_device_and_expires_early(app: App, ada: Account) -> None:
    code, tokens = app.code(ada), ada.tokens()
    assert str(session_of(code)) not in [each["id"] for each in sessions_of(app.muster, tokens)]
    row = row_of(app.muster, session_of(code))
    assert str(row.idle_expires_at) < str(row.absolute_expires_at)
    assert UUID(str(row.id)) == session_of(code)


def test_auth_time_is_that_of_the_browsers_sign_in(app: App, ada: Account) -> None:
    """Deleting an account of the provider's needs a recent sign-in, which a click on Continue is not."""
    browser = signed_in(ada)
    make_older(app.muster, browser.token, age=timedelta(hours=1))
    tokens = Tokens(app.exchange(app.decide(browser)["code"]).json())
    assert claims_of(tokens.access)["iat"] - claims_of(tokens.access)["auth_time"] > 3500


# ---- Metadata and secrecy: P6, and without the password grant: P8 ----


@pytest.mark.one_database
def test_the_metadata_names_the_code_flow(muster: Muster) -> None:
    metadata = muster.client.get(METADATA).json()
    assert metadata["authorization_endpoint"] == f"{metadata['issuer']}/authorize"
    assert metadata["response_types_supported"] == ["code"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert metadata["grant_types_supported"] == ["authorization_code", "refresh_token", "password"]


def test_no_code_verifier_or_state_is_logged_or_stored(app: App, ada: Account) -> None:
    code = app.code(ada)
    assert app.exchange(code).status_code == 200
    assert app.exchange(code, code_verifier="w" * 43).status_code == 400
    rows = str(app.muster.sql("SELECT * FROM refresh_token"))
    for secret in (code, app.verifier, app.state):
        assert secret not in app.muster.log
        assert secret not in rows


@pytest.mark.one_database
@pytest.mark.slow
def test_without_the_password_grant_the_pages_still_sign_in(serve: Callable[..., Muster]) -> None:
    muster = serve(PASSWORD_GRANT="off", CORS_ORIGINS=FRIEND)
    ada = muster.new_account()
    refuse_every_password(muster, ada)
    assert muster.client.get(METADATA).json()["grant_types_supported"] == ["authorization_code", "refresh_token"]
    openapi = muster.client.get("/api/openapi.json").json()
    (content,) = openapi["paths"]["/api/auth/token"]["post"]["requestBody"]["content"].values()
    assert "password" not in str(content)
    assert "/api/auth/cookie/login" not in openapi["paths"]
    for origin in (FRIEND, "https://evil.example", "null", f"{muster.url}.evil.example"):
        assert Browser(muster, origin).log_in(ada).status_code == 403
    body = {"username": ada.email, "password": ada.password}
    assert Browser(muster).call("POST", LOGIN, headers={}, data=body).status_code == 403
    assert muster.sql("SELECT * FROM refresh_token") == []

    browser = Browser(muster)
    signed = browser.call("POST", "/sign-in", data={"username": ada.email, "password": PASSWORD, "next": "/devices"})
    assert (signed.status_code, signed.headers["location"]) == (303, "/devices")
    assert_lives(muster, Tokens((app := App(muster)).exchange(app.decide(browser)["code"]).json()))
    passwords = {"current_password": PASSWORD, "new_password": "copper-lantern-meadow"}
    changed = browser.call("PUT", "/api/users/me/password", json=passwords)
    assert (changed.status_code, changed.content) == (204, b"")


def refuse_every_password(muster: Muster, account: Account) -> None:
    """Check that the token endpoint refuses passwords, whatever grant type the request names."""
    credentials = {"username": account.email, "password": account.password}
    unsupported = ["password", "PASSWORD", "password ", "password\n", "client_credentials", "implicit"]
    for grant_type in (*unsupported, "urn:ietf:params:oauth:grant-type:password"):
        form = {"grant_type": grant_type, **credentials}
        assert_oauth_error(muster.token(**form), 400, "unsupported_grant_type")
        assert_oauth_error(muster.token(**form, client_id="swagger"), 400, "unsupported_grant_type")
    for grant_type in ("authorization_code", "refresh_token", ""):
        assert_oauth_error(muster.token(grant_type=grant_type, **credentials), 400, "invalid_request")
    post, form = partial(muster.client.post, "/api/auth/token"), {"grant_type": "password", **credentials}
    swagger_before = {"Authorization": "Basic Og=="}  # an empty id and secret
    assert_oauth_error(post(data=form, headers=swagger_before), 400, "unsupported_grant_type")
    assert_oauth_error(post(data={**form, "grant_type": ["refresh_token", "password"]}), 400, "invalid_request")
    for request in ({"json": form}, {"params": form}, {"data": form, "files": {"x": b"x"}}):
        assert_oauth_error(post(**request), 400, "invalid_request")
    basic = httpx.BasicAuth(account.email, account.password)
    assert_oauth_error(post(data={"grant_type": "client_credentials"}, auth=basic), 401, "invalid_client")

"""Responses of a token endpoint to the pages: ID tokens like Keycloak's are accepted, those for others are not."""

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from app.core.crypto import ValueSigner
from app.oidc.login import PendingLogin
from tests.support.bearer_tokens import ABSENT
from tests.support.databases import SECRET_KEY, fresh_database
from tests.support.keycloak import Keycloak, SigningKey
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database

CLIENT, SECRET = "muster pages", "a+secret: of ö"  # in Basic both are encoded as in a form
LOGIN = "/api/auth/oidc/login"
STALE, FAILED = "/sign-in?problem=sign-in-stale", "/sign-in?problem=sign-in-failed"
STRANGER = SigningKey("RS256")


@pytest.fixture(scope="module")
def keycloak() -> Iterator[Keycloak]:
    with Keycloak() as served:
        yield served


@pytest.fixture(scope="module")
def served(keycloak: Keycloak, folder: Path, postgres: str) -> Iterator[Muster]:
    settings = {"OIDC_ISSUER": keycloak.issuer, "OIDC_CLIENT_ID": CLIENT, "OIDC_CLIENT_SECRET": SECRET}
    with (
        fresh_database("sqlite", folder, postgres) as url,
        Muster(url, folder, OIDC_ROLE_MAP="muster-admin=admin", CORS_ORIGINS="https://pages.example", **settings) as it,
    ):
        yield it


@pytest.fixture
def browser(served: Muster) -> Iterator[httpx.Client]:
    with served.another_client() as client:
        yield client


def id_token(keycloak: Keycloak, nonce: object, *, key: SigningKey | None = None, **changes: Any) -> str:
    claims = {"nonce": nonce, "aud": CLIENT, "azp": CLIENT, "typ": "ID", "scope": ABSENT, "realm_access": ABSENT}
    return keycloak.token(key=key, **{**claims, **changes})


def sign_in(
    browser: httpx.Client, keycloak: Keycloak, respond: Callable[[str], Any], *, to: str = ""
) -> httpx.Response:
    """Return from the provider with a code, for which the token endpoint answers what `respond` makes of the nonce."""
    asked = parse_qs(urlsplit(browser.get(LOGIN, params={"next": to}).headers["location"]).query)
    keycloak.answers["token"] = respond(asked["nonce"][0])
    return browser.get("/api/auth/oidc/callback", params={"state": asked["state"][0], "code": "the-code"})


def tokens(identity: str, access: str = "opaque") -> dict[str, str]:
    return {"access_token": access, "token_type": "Bearer", "id_token": identity}


def half_hash(text: str) -> str:
    return urlsafe_b64encode(sha256(text.encode()).digest()[:16]).decode().rstrip("=")


def test_the_code_is_redeemed_as_the_specifications_say(browser: httpx.Client, keycloak: Keycloak) -> None:
    location = browser.get(LOGIN).headers["location"]
    assert location.startswith(f"{keycloak.issuer}/auth?kc=1&response_type=code&")  # its own query stays
    answer = sign_in(browser, keycloak, lambda nonce: tokens(id_token(keycloak, nonce)))
    assert answer.headers["location"] == "/operations"
    form, credentials = keycloak.forms[-1], str(keycloak.credentials[-1])
    assert (form["grant_type"], form["code"]) == (["authorization_code"], ["the-code"])
    assert form["redirect_uri"][0].endswith("/api/auth/oidc/callback")
    assert len(form["code_verifier"][0]) >= 43
    assert "client_id" not in form
    assert b64decode(credentials.removeprefix("Basic ")) == b"muster+pages:a%2Bsecret%3A+of+%C3%B6"


GOOD: dict[str, Callable[[Keycloak, str], dict[str, str]]] = {
    "ES256": lambda keycloak, nonce: tokens(id_token(keycloak, nonce, key=keycloak.keys[1])),
    "several audiences": lambda keycloak, nonce: tokens(id_token(keycloak, nonce, aud=["x", CLIENT])),
    "no azp": lambda keycloak, nonce: tokens(id_token(keycloak, nonce, azp=ABSENT, aud=[CLIENT])),
    "at_hash": lambda keycloak, nonce: tokens(id_token(keycloak, nonce, at_hash=half_hash("opaque"))),
}


@pytest.mark.parametrize("good", GOOD)
def test_an_id_token_for_us_signs_in(browser: httpx.Client, keycloak: Keycloak, good: str) -> None:
    answer = sign_in(browser, keycloak, lambda nonce: GOOD[good](keycloak, nonce))
    assert answer.headers["location"] == "/operations"
    assert browser.get("/api/users/me").status_code == 200


BAD: dict[str, dict[str, Any]] = {
    "another client's": {"aud": "stranger"},
    "another client's, by azp": {"azp": "stranger"},
    "for several, and nobody says whom": {"aud": [CLIENT, "stranger"], "azp": ABSENT},
    "an access token": {"aud": ["muster", "account"], "typ": "Bearer"},
    "no audience": {"aud": ABSENT},
    "another realm's": {"iss": "http://127.0.0.1:1/realms/muster"},
    "no issuer": {"iss": ABSENT},
    "another nonce": {"nonce": "another"},
    "no nonce": {"nonce": ABSENT},
    "no subject": {"sub": ABSENT},
    "an odd subject": {"sub": "a\nb"},
    "expired": {"exp": int(time()) - 61},
    "no end": {"exp": ABSENT},
    "of tomorrow": {"iat": int(time()) + 86400},
    "an odd time": {"iat": True},
    "another access token's": {"at_hash": half_hash("another")},
    "a stranger's key": {"key": STRANGER},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_an_id_token_that_is_not_for_us_signs_nobody_in(
    served: Muster, browser: httpx.Client, keycloak: Keycloak, changes: dict[str, Any]
) -> None:
    STRANGER.id = keycloak.keys[0].id  # its kid alone proves nothing
    size = served.log_file.stat().st_size
    answer = sign_in(browser, keycloak, lambda nonce: tokens(id_token(keycloak, **{"nonce": nonce, **changes})))
    assert (answer.status_code, answer.headers["location"]) == (303, FAILED)
    assert "muster" not in browser.cookies
    assert "ID token rejected" in served.log_after(size)


ODD: dict[str, tuple[Any, str]] = {
    "no ID token": ({"access_token": "opaque"}, FAILED),
    "no access token": ({"id_token": "a.b.c"}, FAILED),
    "numbers": ({"access_token": 1, "id_token": 2}, FAILED),
    "nonsense": ({"access_token": "opaque", "id_token": "é"}, FAILED),
    "refused": (400, FAILED),
    "our secret is wrong": (401, FAILED),
    "a list": (["x"], "/sign-in?problem=provider-unavailable"),
    "broken": (500, "/sign-in?problem=provider-unavailable"),
    "too much": (b"x" * 300_000, "/sign-in?problem=provider-unavailable"),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_invalid_response_is_shown_as_a_page(browser: httpx.Client, keycloak: Keycloak, odd: str) -> None:
    response, where = ODD[odd]
    answer = sign_in(browser, keycloak, lambda _: response)
    assert (answer.status_code, answer.headers["location"]) == (303, where)


# ---- Time ----


@pytest.mark.parametrize(
    ("age", "use", "purpose", "location"),
    [
        (590, "sign-in", "login", "/devices"),
        (601, "sign-in", "login", STALE),
        (0, "cursor", "login", STALE),
        (0, "sign-in", "login state", STALE),
    ],
)
def test_a_pending_login_lasts_ten_minutes_and_is_signed_for_that_purpose_alone(
    browser: httpx.Client, keycloak: Keycloak, age: int, use: str, purpose: str, location: str
) -> None:
    state = ValueSigner([SECRET_KEY], "sign-in").sign({"id": "of the test", "origin": ""}, "login state")
    login = PendingLogin(state=state, path="/devices", started_at=int(time()) - age, nonce="nonce")
    browser.cookies.set("muster-sign-in", ValueSigner([SECRET_KEY], use).sign(asdict(login), purpose))
    keycloak.answers["token"] = tokens(id_token(keycloak, "nonce"))
    answer = browser.get("/api/auth/oidc/callback", params={"state": state, "code": "the-code"})
    assert answer.headers["location"] == location


# ---- Roles, and addresses ----


def role_after(browser: httpx.Client, keycloak: Keycloak, identity: dict[str, Any], access: str = "opaque") -> str:
    browser.cookies.clear()
    answer = sign_in(browser, keycloak, lambda nonce: tokens(id_token(keycloak, nonce, **identity), access))
    assert answer.headers["location"] == "/operations"
    return str(browser.get("/api/users/me").json()["role"])


def test_roles_come_from_the_access_token_or_the_id_token_and_stay_if_neither_names_any(
    browser: httpx.Client, keycloak: Keycloak
) -> None:
    now, admin, nothing = int(time()), {"roles": ["muster-admin"]}, {"roles": ["other"]}
    sub: dict[str, Any] = {"sub": str(uuid4())}
    access = keycloak.token(azp=CLIENT, realm_access=admin, **sub)
    assert role_after(browser, keycloak, {**sub, "iat": now - 9}, access) == "admin"
    assert role_after(browser, keycloak, {**sub, "iat": now - 8}) == "admin"
    assert role_after(browser, keycloak, {**sub, "iat": now - 7, "realm_access": nothing}) == "user"
    assert role_after(browser, keycloak, {**sub, "iat": now - 9, "realm_access": admin}) == "user"  # an older one
    assert role_after(browser, keycloak, {**sub, "iat": now - 6, "realm_access": admin}) == "admin"
    elses = keycloak.token(azp=CLIENT, aud="account", realm_access=nothing, **sub)
    assert role_after(browser, keycloak, {**sub, "iat": now - 5}, elses) == "admin"


def test_an_access_token_of_somebody_else_signs_nobody_in(browser: httpx.Client, keycloak: Keycloak) -> None:
    access = keycloak.token(azp=CLIENT)
    answer = sign_in(browser, keycloak, lambda nonce: tokens(id_token(keycloak, nonce), access))
    assert answer.headers["location"] == FAILED


@pytest.mark.parametrize("userinfo", [{}, {"email": "nobody"}], ids=["none", "no address"])
def test_no_account_is_created_without_an_address(
    browser: httpx.Client, keycloak: Keycloak, userinfo: dict[str, Any]
) -> None:
    subject = str(uuid4())
    keycloak.answers["userinfo"] = {"sub": subject, **userinfo}
    answer = sign_in(browser, keycloak, lambda nonce: tokens(id_token(keycloak, nonce, sub=subject, email=ABSENT)))
    assert answer.headers["location"] == "/sign-in?problem=email-missing"


# ---- Pages of another origin, and limits ----


@pytest.mark.parametrize(
    ("wanted", "location"),
    [
        ("https://pages.example/devices", "https://pages.example/devices"),
        ("https://pages.example//evil.example", "https://pages.example/operations"),
        ("https://pages.example.evil.example/", "/operations"),
        ("https://pages.example@evil.example/", "/operations"),
        ("https://pages.example", "/operations"),
    ],
)
def test_sign_in_returns_to_pages_at_another_origin(
    browser: httpx.Client, keycloak: Keycloak, wanted: str, location: str
) -> None:
    answer = sign_in(browser, keycloak, lambda nonce: tokens(id_token(keycloak, nonce)), to=wanted)
    assert answer.headers["location"] == location
    origin = location.partition("/")[0] and "https://pages.example"
    asked = parse_qs(urlsplit(browser.get(LOGIN, params={"next": wanted}).headers["location"]).query)
    browser.cookies.clear()  # even for an attempt that this browser has forgotten
    answer = browser.get("/api/auth/oidc/callback", params={"state": asked["state"][0], "code": "x"})
    assert answer.headers["location"] == origin + STALE


def test_a_sign_in_for_an_origin_removed_from_the_settings_is_rejected(browser: httpx.Client) -> None:
    state = ValueSigner([SECRET_KEY], "sign-in").sign(
        {"id": "of the test", "origin": "https://former.example"}, "login state"
    )
    answer = browser.get("/api/auth/oidc/callback", params={"state": state, "code": "x"})
    assert answer.headers["location"] == STALE


def test_limits_and_outages_of_the_sign_in_are_shown_on_a_page(folder: Path, postgres: str) -> None:
    away = Keycloak()
    pages = "https://pages.example"
    settings = {"OIDC_ISSUER": away.issuer, "OIDC_CLIENT_ID": CLIENT, "LIMIT_LOGIN_IP": "2/minute"}
    settings["CORS_ORIGINS"] = pages
    with fresh_database("sqlite", folder, postgres) as url, Muster(url, folder, **settings) as muster:
        answers = [muster.client.get(path) for path in [LOGIN] * 3 + ["/api/auth/oidc/callback"] * 3]
        problems = [answer.headers["location"].removeprefix("/sign-in?problem=") for answer in answers]
        assert problems == [
            *["provider-unavailable", "provider-unavailable", "too-many-requests"],
            *["sign-in-stale", "sign-in-stale", "too-many-requests"],
        ]
        apart = muster.client.get(LOGIN, params={"next": f"{pages}/devices"})
        assert apart.headers["location"] == f"{pages}/sign-in?problem=too-many-requests"
        assert muster.client.post(LOGIN).status_code == 405
        assert "Wait a minute" in muster.client.get(answers[2].headers["location"]).text

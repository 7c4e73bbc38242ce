"""The token endpoint, by RFC 6749 sections 4.3, 5 and 6: what it grants, and how it refuses."""

import re
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import text

from app.core.scopes import ROLES, USER
from tests.support.assertions import assert_oauth_error
from tests.support.servers import PASSWORD, Muster, Tokens, claims_of

TOKEN = "/api/auth/token"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MAX_BODY = 1024 * 1024
FIELDS = ["grant_type", "username", "password", "refresh_token", "scope", "client_id", "device"]
USER_SCOPES = " ".join(ROLES[USER])


def post(muster: Muster, body: str | bytes, **headers: str) -> httpx.Response:
    return muster.client.post(TOKEN, content=body, headers={**FORM, **headers})


def basic(credentials: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


def sign_in_form(muster: Muster, **fields: str) -> dict[str, str]:
    return {"grant_type": "password", "username": muster.new_account().email, "password": PASSWORD, **fields}


# ---- Grants ----


def test_a_password_grant_returns_a_pair_of_tokens(muster: Muster) -> None:
    account = muster.new_account()
    answer = muster.token(grant_type="password", username=account.email, password=account.password)
    assert answer.status_code == 200
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    pair = Tokens(answer.json())
    assert set(pair) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert (pair["token_type"], pair["expires_in"], pair["scope"]) == ("Bearer", 600, USER_SCOPES)
    assert re.fullmatch(r"[A-Za-z0-9_-]{72}", pair.refresh)

    claims = claims_of(pair.access)
    assert " ".join(sorted(claims)) == "aud auth_time client_id exp gen iat iss jti scope sid sub"
    assert (claims["aud"], claims["client_id"], claims["gen"]) == ("muster", "app", 1)
    assert claims["sub"] == muster.me(pair).json()["id"]
    assert claims["exp"] - claims["iat"] == 600


@pytest.mark.parametrize(
    ("asked", "granted"),
    [("jobs", "jobs"), ("jobs me", "me jobs"), ("me users:read", "me"), ("", USER_SCOPES), (None, USER_SCOPES)],
)
def test_a_sign_in_gets_the_scopes_it_asked_for_as_far_as_its_role_has_them(
    muster: Muster, asked: str | None, granted: str
) -> None:
    pair = muster.new_account().sign_in(**({} if asked is None else {"scope": asked}))
    assert set(pair["scope"].split()) == set(granted.split())
    assert muster.refresh(pair.refresh).json()["scope"] == pair["scope"]


@pytest.mark.one_database
@pytest.mark.parametrize("scope", ["nonsense", "me nonsense", "users:read", "me  jobs", " me", "me\tjobs", 'me"', "ü"])
def test_a_scope_that_is_unknown_malformed_or_not_of_the_role_is_refused(muster: Muster, scope: str) -> None:
    assert_oauth_error(muster.token(**sign_in_form(muster, scope=scope)), 400, "invalid_scope")


def test_a_refresh_may_narrow_the_scope_for_one_access_token(muster: Muster) -> None:
    pair = muster.new_account().tokens()
    narrow = Tokens(muster.refresh(pair.refresh, scope="jobs").json())
    assert narrow["scope"] == "jobs"
    assert muster.me(narrow).status_code == 403
    assert muster.refresh(narrow.refresh).json()["scope"] == USER_SCOPES


@pytest.mark.parametrize("scope", ["me operations:read", "me users:read", "me nonsense", "nonsense"])
def test_a_refresh_that_asks_for_more_is_refused_and_uses_up_nothing(muster: Muster, scope: str) -> None:
    pair = muster.new_account().sign_in(scope="me jobs")
    assert_oauth_error(muster.refresh(pair.refresh, scope=scope), 400, "invalid_scope")
    following = Tokens(muster.refresh(pair.refresh).json())
    assert claims_of(following.access)["gen"] == 2
    assert set(following["scope"].split()) == {"me", "jobs"}


def test_a_refresh_names_the_client_that_signed_in_or_none(muster: Muster) -> None:
    pair = muster.new_account().sign_in(client_id="ios")
    assert claims_of(pair.access)["client_id"] == "ios"
    assert_oauth_error(muster.refresh(pair.refresh, client_id="android"), 400, "invalid_grant")
    pair = Tokens(muster.refresh(pair.refresh, client_id="ios").json())
    assert muster.refresh(pair.refresh).status_code == 200


# ---- Refusals ----


@pytest.mark.one_database
@pytest.mark.parametrize(
    "body",
    [
        "",
        "grant_type=",
        "grant_type=password&username=ada@example.com",
        "grant_type=password&username=ada@example.com&password=",
        "grant_type=password&username=&password=violet-tandem-harbor",
        "grant_type=refresh_token",
        "grant_type=refresh_token&refresh_token=",
        "username=ada@example.com&password=violet-tandem-harbor",
    ],
)
def test_a_missing_or_empty_parameter_is_invalid_request(muster: Muster, body: str) -> None:
    assert_oauth_error(post(muster, body), 400, "invalid_request")


@pytest.mark.one_database
@pytest.mark.parametrize("name", [*FIELDS, "client_secret"])
def test_a_known_parameter_twice_is_invalid_request(muster: Muster, name: str) -> None:
    fields = sign_in_form(muster)
    value = fields.setdefault(name, "x")
    assert_oauth_error(post(muster, f"{urlencode(fields)}&{urlencode({name: value})}"), 400, "invalid_request")


@pytest.mark.one_database
def test_unknown_parameters_are_ignored(muster: Muster) -> None:
    assert post(muster, f"{urlencode(sign_in_form(muster))}&favorite=blue&favorite=green&empty=").is_success


@pytest.mark.one_database
@pytest.mark.parametrize("grant_type", ["foo", "implicit", "client_credentials", "Password", "password "])
def test_another_grant_type_is_unsupported(muster: Muster, grant_type: str) -> None:
    assert_oauth_error(muster.token(**sign_in_form(muster) | {"grant_type": grant_type}), 400, "unsupported_grant_type")


def test_signing_in_does_not_reveal_which_accounts_exist(muster: Muster) -> None:
    known, disabled = muster.new_account(), muster.new_account()
    muster.sql('UPDATE "user" SET is_active = false WHERE email = :email', email=disabled.email)
    attempts = [
        (known.email, "a-wrong-password"),
        ("nobody@example.com", PASSWORD),
        (disabled.email, PASSWORD),
        ("no address at all", PASSWORD),
        ("x" * 5_000, PASSWORD),
    ]
    answers = [muster.token(grant_type="password", username=name, password=word) for name, word in attempts]
    for answer in answers:
        assert_oauth_error(answer, 400, "invalid_grant")
    assert len({answer.content for answer in answers}) == 1
    assert len({frozenset(answer.headers) for answer in answers}) == 1


CLIENTS = {
    "without a secret": basic("app:"),
    "with a secret": basic("app:secret"),
    "without a colon": basic("app"),
    "not base64": {"Authorization": "Basic ?"},
}


@pytest.mark.one_database
@pytest.mark.parametrize("path", [TOKEN, "/api/auth/revoke"])
@pytest.mark.parametrize("header", CLIENTS.values(), ids=CLIENTS)
def test_a_client_in_basic_is_unknown(muster: Muster, header: dict[str, str], path: str) -> None:
    body = {**sign_in_form(muster), "token": "x"}
    answer = muster.client.post(path, data=body, headers=header)
    assert_oauth_error(answer, 401, "invalid_client")
    assert answer.headers["www-authenticate"] == 'Basic realm="muster"'


@pytest.mark.one_database
@pytest.mark.parametrize(
    "header",
    [basic(":"), basic(":secret"), {"Authorization": "Bearer stale"}],
    ids=["empty", "a secret alone", "another scheme"],
)
def test_an_empty_client_in_basic_and_another_scheme_are_ignored(muster: Muster, header: dict[str, str]) -> None:
    assert muster.client.post(TOKEN, data=sign_in_form(muster), headers=header).status_code == 200


def test_a_token_of_one_kind_is_not_accepted_as_another(muster: Muster) -> None:
    account = muster.register()
    pair = account.sign_in()
    muster.client.post("/api/auth/forgot-password", json={"email": account.email})
    reset = muster.link_token(account.email, subject="Reset")
    verification = muster.link_token(account.email, subject="Confirm")
    for other in (pair.access, reset, verification):
        assert_oauth_error(muster.refresh(other), 400, "invalid_grant")
    for other in (pair.refresh, reset, verification):
        answer = muster.client.get("/api/users/me", headers={"Authorization": f"Bearer {other}"})
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert muster.me(pair).status_code == 200


@pytest.mark.one_database
@pytest.mark.parametrize("path", [TOKEN, "/api/auth/revoke", "/api/auth/introspect"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_post_is_allowed(muster: Muster, method: str, path: str) -> None:
    answer = muster.client.request(method, path)
    assert_oauth_error(answer, 405, "invalid_request")
    assert answer.headers["allow"] == "POST"


@pytest.mark.one_database
@pytest.mark.parametrize("name", [*FIELDS, "token", "client_secret"])
def test_parameters_in_the_url_are_refused(muster: Muster, name: str) -> None:
    assert_oauth_error(muster.client.post(TOKEN, params={name: "x"}, data=sign_in_form(muster)), 400, "invalid_request")


@pytest.mark.one_database
def test_only_a_form_is_read(muster: Muster) -> None:
    form = sign_in_form(muster)
    answers = [
        muster.client.post(TOKEN, json=form),
        muster.client.post(TOKEN, data=form, files={"file": b"x"}),
        muster.client.post(TOKEN, content=urlencode(form)),
    ]
    for answer in answers:
        assert_oauth_error(answer, 400, "invalid_request")
    assert post(muster, urlencode(form), **{"Content-Type": f"{FORM['Content-Type']}; charset=UTF-8"}).is_success


@pytest.mark.parametrize("value", [b"%00", b"a%00b", b"\x00", b"%FF", b"\xff", b"%ED%A0%80", b"\xc3\x28"])
@pytest.mark.parametrize("name", [*FIELDS, "favorite"])
def test_nul_and_invalid_utf8_are_invalid_request_in_every_field(muster: Muster, name: str, value: bytes) -> None:
    form = {"grant_type": "password", "username": "ada@example.com", "password": "x"}
    form.pop(name, None)
    body = urlencode(form).encode() + b"&" + name.encode() + b"=" + value
    assert_oauth_error(post(muster, body), 400, "invalid_request")


@pytest.mark.parametrize(
    "client_id", ["x" * 101, "a\nb", " padded ", "a\u2028b"], ids=["long", "line feed", "spaces", "line separator"]
)
def test_a_client_id_that_fits_no_row_is_invalid_request(muster: Muster, client_id: str) -> None:
    assert_oauth_error(muster.token(**sign_in_form(muster, client_id=client_id)), 400, "invalid_request")


@pytest.mark.one_database
@pytest.mark.parametrize("path", [TOKEN, "/api/auth/revoke"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_over_the_limit_is_413(muster: Muster, path: str, *, in_chunks: bool) -> None:
    body = b"token=" + b"x" * MAX_BODY
    content = (body[start : start + 65_536] for start in range(0, len(body), 65_536)) if in_chunks else body
    assert_oauth_error(muster.client.post(path, content=content, headers=FORM), 413, "invalid_request")


@pytest.mark.one_database
@pytest.mark.slow
@pytest.mark.parametrize("name", ["username", "password"])
def test_text_that_is_slow_to_normalize_does_not_block_other_requests(serve: Callable[..., Muster], name: str) -> None:
    muster = serve()  # of its own: a service that normalizes all of this text answers nobody for minutes
    pairs = "\u0301\u0327" * 200_000  # in the wrong order: sorting them takes the square of their number
    form = sign_in_form(muster) | {name: f"a{pairs}@example.com"}
    try:
        answer = post(muster, "&".join(f"{key}={value}" for key, value in form.items()).encode())
    except httpx.TimeoutException:
        muster.kill()
        raise
    assert_oauth_error(answer, 400, "invalid_grant")


@pytest.mark.slow
def test_a_busy_database_is_503_and_the_same_request_works_later(serve: Callable[..., Muster]) -> None:
    muster = serve(STATEMENT_TIMEOUT="1", SLOT_TIMEOUT="1", DB_SLOTS="1")
    pair = muster.new_account().tokens()
    lock = "BEGIN IMMEDIATE" if muster.on_sqlite else "LOCK TABLE refresh_token"
    with muster.engine.begin() as connection, ThreadPoolExecutor() as pool:
        connection.execute(text(lock))
        answers = list(pool.map(lambda _: muster.refresh(pair.refresh), range(2)))
    for answer in answers:
        assert_oauth_error(answer, 503, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert muster.refresh(pair.refresh).status_code == 200

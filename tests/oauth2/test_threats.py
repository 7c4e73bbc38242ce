"""SECURITY.md's statements about stolen secrets that no other test covers: which of them give access, and to what."""

from pathlib import Path
from uuid import UUID

import pytest

from app.accounts.email_tokens import make_link_token
from app.core.crypto import TokenSigner
from app.jobs.backends import make_celery
from app.models.base import utcnow
from app.models.user import User
from app.oauth2.access_tokens import Signers
from tests.support.assertions import assert_problem
from tests.support.bearer_tokens import rsa_forged
from tests.support.cookie_browser import Browser
from tests.support.databases import SECRET_KEY, fresh_database
from tests.support.rsa_keys import key_file
from tests.support.servers import PASSWORD, Account, Muster, Tokens, claims_of
from tests.support.sessions import NOBODY, assert_lives, assert_signed_out, is_refused, row_of

OTHER_KEY = "a key that somebody else made up, of 48 characters"
NEW_PASSWORD = "copper-violin-glacier"


@pytest.fixture
def ada(muster: Muster) -> Account:
    return muster.new_account()


def credentials(muster: Muster, account: Account) -> User:
    """The credentials in a stolen database."""
    (row,) = muster.sql('SELECT * FROM "user" WHERE email = :email', email=account.email)
    known = {name: getattr(row, name) for name in ("email", "name", "password_hash", "auth_epoch")}
    return User(id=UUID(str(row.id)), **known)


def reset(muster: Muster, account: Account, key: str) -> int:
    token = make_link_token(Signers([key], muster.url), credentials(muster, account), "reset", utcnow())
    body = {"token": token, "new_password": NEW_PASSWORD}
    return muster.client.post("/api/auth/reset-password", json=body).status_code


# ---- A database, SECRET_KEYS, and both ----


def test_a_stolen_database_alone_signs_nobody_in(muster: Muster, ada: Account) -> None:
    tokens = ada.tokens()
    row = row_of(muster, tokens)
    forged = TokenSigner([OTHER_KEY], "refresh").sign(UUID(claims_of(tokens.access)["sid"]), 1, row.secret)
    assert is_refused(muster.refresh(forged))
    assert reset(muster, ada, OTHER_KEY) == 400
    hashed = credentials(muster, ada).password_hash
    assert hashed is not None
    assert is_refused(muster.token(grant_type="password", username=ada.email, password=hashed))
    assert_lives(muster, tokens)


def test_stolen_secret_keys_alone_make_no_refresh_token(muster: Muster, ada: Account) -> None:
    tokens = ada.tokens()
    session_id = UUID(claims_of(tokens.access)["sid"])
    assert is_refused(muster.refresh(TokenSigner([SECRET_KEY], "refresh").sign(session_id, 1, b"\0" * 32)))
    assert_lives(muster, tokens)


def test_a_stolen_database_with_its_secret_keys_gives_full_access(muster: Muster, ada: Account) -> None:
    tokens = ada.tokens()
    session_id, row = UUID(claims_of(tokens.access)["sid"]), row_of(muster, tokens)
    assert TokenSigner([SECRET_KEY], "refresh").sign(session_id, 1, row.secret) == tokens.refresh
    assert reset(muster, ada, SECRET_KEY) == 204


# ---- A token, a cookie ----


def test_a_stolen_access_token_cannot_take_over_the_account(muster: Muster, ada: Account) -> None:
    """The token reads, writes and signs devices out. Anything that would lock the owner out requires the password."""
    stolen, device = ada.tokens(), ada.tokens()
    for method, path, body in (
        ("PUT", "/api/users/me/password", {"new_password": NEW_PASSWORD}),
        ("PUT", "/api/users/me/email", {"email": "thief@example.com"}),
        ("DELETE", "/api/users/me", {}),
    ):
        guess = {**body, "current_password": "a guess at a password"}
        assert_problem(muster.client.request(method, path, json=guess, headers=stolen.bearer), 403, "wrong-password")
    assert is_refused(muster.refresh(stolen.access))
    assert muster.client.delete("/api/users/me/sessions", headers=stolen.bearer).status_code == 204
    assert_signed_out(muster, device)


def test_a_new_password_ends_whatever_was_stolen(muster: Muster, ada: Account) -> None:
    stolen, browser = ada.tokens(), Browser(muster).sign_in(ada)
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    answer = muster.client.put("/api/users/me/password", json=body, headers=ada.tokens().bearer)
    assert_signed_out(muster, stolen)
    assert is_refused(muster.me(browser.token))
    assert_lives(muster, Tokens(answer.json()))


def test_a_stolen_cookie_works_for_the_thief_until_its_session_is_ended(muster: Muster, ada: Account) -> None:
    """No token rotates, so the theft does not show: the owner finds and ends the session in the list of devices."""
    browser, phone = Browser(muster).sign_in(ada), ada.tokens()
    assert muster.me(browser.token).status_code == 200, "also without a browser, as a bearer token"
    assert browser.call("GET", "/api/users/me").status_code == 200
    listed = muster.client.get("/api/users/me/sessions", headers=phone.bearer).json()
    (theirs,) = [each["id"] for each in listed if each["client_id"] == "browser"]
    assert muster.client.delete(f"/api/users/me/sessions/{theirs}", headers=phone.bearer).status_code == 204
    assert is_refused(muster.me(browser.token))


# ---- A key file (JWT_PRIVATE_KEY_FILES) ----


def test_a_key_file_makes_access_tokens_of_known_sessions_and_nothing_that_outlives_it(
    folder: Path, postgres: str
) -> None:
    files = str(key_file(folder, "threats"))
    with fresh_database("sqlite", folder, postgres) as url, Muster(url, folder, JWT_PRIVATE_KEY_FILES=files) as muster:
        phone = muster.new_account().tokens()
        month = {"exp": claims_of(phone.access)["exp"] + 30 * 86_400}
        stolen = Tokens(access_token=rsa_forged(phone, key="threats", **month))
        assert muster.me(stolen).status_code == 200, "for as long as the thief likes, while the session lives"
        for claims in ({"sub": NOBODY}, {"sid": NOBODY}, {"cookie": True}):
            assert is_refused(muster.me(Tokens(access_token=rsa_forged(phone, key="threats", **month, **claims))))
        admin = Tokens(access_token=rsa_forged(phone, key="threats", scope="users:read"))
        assert muster.client.get("/api/users", headers=admin.bearer).status_code == 403, "no more than the role has"
        muster.restart(JWT_PRIVATE_KEY_FILES="")
        assert is_refused(muster.me(stolen))
        assert muster.refresh(phone.refresh).status_code == 200


def test_workers_accept_json_alone() -> None:
    """A pickle in a queue would run whatever its author likes."""
    assert make_celery("redis://localhost:1").conf.accept_content == ("json",)

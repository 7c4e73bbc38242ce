"""Accounts: registering, changing and deleting an account."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi.routing import APIRoute

from app.main import api
from tests.support.assertions import assert_problem
from tests.support.databases import fresh_database
from tests.support.servers import PASSWORD, Account, Muster, Tokens, claims_of
from tests.support.sessions import assert_signed_out

NEW_PASSWORD = "copper-lantern-meadow"


def register(muster: Muster, **body: Any) -> httpx.Response:
    return muster.client.post("/api/auth/register", json={"password": PASSWORD, **body})


def fresh_address() -> str:
    return f"{uuid4().hex}@example.com"


def sign_in(muster: Muster, email: str, password: str) -> httpx.Response:
    return muster.token(grant_type="password", username=email, password=password)


def change_password(tokens: Tokens, muster: Muster, current: str = PASSWORD, new: str = NEW_PASSWORD) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return muster.client.put("/api/users/me/password", json=body, headers=tokens.bearer)


def delete_me(muster: Muster, tokens: Tokens, password: str) -> httpx.Response:
    body = {"current_password": password}
    return muster.client.request("DELETE", "/api/users/me", json=body, headers=tokens.bearer)


# ---- Registering ----


def test_registration_returns_the_account_with_the_role_user(muster: Muster) -> None:
    email = fresh_address()
    answer = register(muster, email=email, name=" Ada ")
    assert (answer.status_code, answer.headers["location"]) == (201, "/api/users/me")
    body = answer.json()
    expected = {"id", "email", "name", "role", "scopes", "is_active", "is_verified", "created_at"}
    assert set(body) == expected
    assert (body["email"], body["name"], body["role"]) == (email, "Ada", "user")
    assert (body["is_active"], body["is_verified"]) == (True, False)
    assert body["created_at"].endswith("Z")
    tokens = Account(muster, email, PASSWORD).sign_in()
    assert muster.me(tokens).json() == body
    assert tokens["scope"].split() == body["scopes"]


@pytest.mark.parametrize(
    "wish", [{"role": "admin"}, {"scopes": ["users:write"]}, {"is_verified": True}, {"id": "1"}], ids=" ".join
)
def test_registration_cannot_choose_a_role_or_scope(muster: Muster, wish: dict[str, Any]) -> None:
    answer = register(muster, email=fresh_address(), **wish)
    assert_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["loc"] == ["body", *wish]


@pytest.mark.parametrize("domain", ["printer.local", "nas.home.arpa", "bücher.example"])
def test_mail_reaches_home_network_domains_and_domains_with_accents(muster: Muster, domain: str) -> None:
    name = uuid4().hex
    assert register(muster, email=f"{name}@{domain}").json()["email"] == f"{name}@{domain}"
    assert muster.mails(f"{name}@{domain.encode('idna').decode()}")


def test_email_addresses_are_compared_case_insensitively(muster: Muster) -> None:
    name = uuid4().hex
    assert register(muster, email=f" Ada.{name}@Example.COM ").json()["email"] == f"ada.{name}@example.com"
    taken = register(muster, email=f"ADA.{name}@example.com")
    assert_problem(taken, 409, "email-taken")
    assert taken.json()["field"] == "email"
    assert sign_in(muster, f" aDa.{name}@EXAMPLE.com ", PASSWORD).status_code == 200


@pytest.mark.slow
def test_concurrent_registrations_of_one_address_create_one_account(muster: Muster) -> None:
    email = fresh_address()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: register(muster, email=email), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert sign_in(muster, email, PASSWORD).status_code == 200


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@example.com", "a b@example.com", "ada@example.com\0", "jörg@example.com", 7, None]
)
def test_an_invalid_email_address_is_rejected(muster: Muster, email: object) -> None:
    answer = register(muster, email=email)
    assert_problem(answer, 422, "invalid")
    assert [error["loc"] for error in answer.json()["errors"]] == [["body", "email"]]


# ---- Changing one's own account ----


def test_a_name_can_be_changed_kept_or_removed(muster: Muster) -> None:
    tokens = muster.register(name="Ada").sign_in()

    def patch(body: Any) -> httpx.Response:
        return muster.client.patch("/api/users/me", json=body, headers=tokens.bearer)

    assert patch({}).json()["name"] == "Ada"
    assert patch({"name": "  Zoe\u0308 "}).json()["name"] == "Zoë"
    for refused in ("", " ", "x" * 101, "a\0b", "a\nb", 7):
        assert_problem(patch({"name": refused}), 422, "invalid")
    foreign: list[Any] = [
        {"email": fresh_address()},
        {"role": "admin"},
        {"is_active": False},
        {"name": "x", "id": "y"},
        [],
    ]
    for body in foreign:
        assert_problem(patch(body), 422, "invalid")
    assert muster.me(tokens).json()["name"] == "Zoë"
    assert patch({"name": None}).json()["name"] is None


OWN_ACCOUNT = [
    (method, route.path)
    for route in api.routes
    if isinstance(route, APIRoute) and route.path.startswith("/api/users/me")
    for method in sorted(route.methods or ())
]


@pytest.mark.parametrize(("method", "path"), OWN_ACCOUNT)
def test_every_route_of_your_own_account_requires_the_scope_me(muster: Muster, method: str, path: str) -> None:
    whole = muster.new_account().tokens()
    tokens = Tokens(muster.refresh(whole.refresh, scope="jobs").json())
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, "email": fresh_address()}
    url = path.replace("{session_id}", claims_of(whole.access)["sid"])
    assert_problem(muster.client.request(method, url, json=body, headers=tokens.bearer), 403, "insufficient-scope")


def test_a_new_password_ends_every_session_and_gives_this_device_a_new_pair(muster: Muster) -> None:
    account = muster.new_account()
    phone, tablet = account.sign_in(device="phone", client_id="ios", scope="me jobs"), account.tokens()
    answer = change_password(phone, muster)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    pair = Tokens(answer.json())
    assert_signed_out(muster, phone, tablet)
    sessions = muster.client.get("/api/users/me/sessions", headers=pair.bearer).json()
    assert [(s["device"], s["client_id"], s["scope"], s["current"]) for s in sessions] == [
        ("phone", "ios", "me jobs", True)
    ]
    assert claims_of(pair.access)["sid"] != claims_of(phone.access)["sid"]
    assert muster.refresh(pair.refresh, client_id="ios").json()["scope"] == "me jobs"
    assert sign_in(muster, account.email, PASSWORD).json()["error"] == "invalid_grant"
    assert sign_in(muster, account.email, NEW_PASSWORD).status_code == 200
    assert muster.mails(account.email, subject="Your password was changed")


@pytest.mark.parametrize(
    ("current", "new", "status", "problem"),
    [("a-wrong-password", NEW_PASSWORD, 403, "wrong-password"), (PASSWORD, "short", 422, "invalid")],
)
def test_a_refused_change_of_password_changes_nothing(
    muster: Muster, current: str, new: str, status: int, problem: str
) -> None:
    account = muster.new_account()
    tokens = account.tokens()
    answer = change_password(tokens, muster, current, new)
    assert_problem(answer, status, problem)
    assert "www-authenticate" not in answer.headers
    assert current not in answer.text
    assert muster.me(tokens).status_code == muster.refresh(tokens.refresh).status_code == 200
    account.sign_in()


def test_one_of_two_concurrent_password_changes_wins(muster: Muster) -> None:
    account = muster.new_account()
    devices = [account.tokens(), account.tokens()]
    passwords = ["first-lantern-meadow", "second-lantern-meadow"]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda tokens, new: change_password(tokens, muster, new=new), devices, passwords))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) in ([200, 401], [200, 409])
    winner = statuses.index(200)
    assert muster.me(Tokens(answers[winner].json())).status_code == 200
    assert [sign_in(muster, account.email, new).status_code == 200 for new in passwords] == [winner == 0, winner == 1]


@pytest.mark.slow
def test_deleting_a_large_account_may_take_longer_than_other_statements(folder: Path, postgres: str) -> None:
    with fresh_database("postgresql", folder, postgres) as url, Muster(url, folder, STATEMENT_TIMEOUT="0.5") as muster:
        tokens = muster.new_account().tokens()
        slow = "BEGIN PERFORM pg_sleep(1); RETURN OLD; END"
        muster.sql(f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS '{slow}'")
        muster.sql("CREATE TRIGGER slow BEFORE DELETE ON refresh_token FOR EACH ROW EXECUTE FUNCTION slow()")
        assert delete_me(muster, tokens, PASSWORD).status_code == 204


def test_deleting_an_account_requires_the_password_and_leaves_no_rows(muster: Muster) -> None:
    account = muster.new_account()
    phone, tablet = account.tokens(), account.tokens()
    assert_problem(delete_me(muster, phone, "a-wrong-password"), 403, "wrong-password")
    assert muster.me(phone).status_code == 200
    user_id = muster.me(phone).json()["id"]
    assert delete_me(muster, phone, PASSWORD).status_code == 204
    assert_signed_out(muster, phone, tablet)
    assert sign_in(muster, account.email, PASSWORD).json()["error"] == "invalid_grant"
    rows = muster.sql("SELECT user_id FROM refresh_token")
    assert user_id.replace("-", "") not in {str(row.user_id).replace("-", "") for row in rows}
    assert register(muster, email=account.email).status_code == 201

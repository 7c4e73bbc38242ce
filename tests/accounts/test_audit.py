"""The audit log: who did what to which account, from where, and what it keeps of a deleted account."""

import json
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest

from tests.support.assertions import assert_problem
from tests.support.hostile import head
from tests.support.oauth_clients import App
from tests.support.resources import call, pages
from tests.support.servers import PASSWORD, STARTUP, Muster, Tokens, claims_of, wait_for
from tests.support.sessions import id_of

NEW_PASSWORD = "copper-lantern-meadow"


def events_of(muster: Muster, admin: Tokens, user_id: str, more: str = "") -> list[dict[str, Any]]:
    """The events of an account as admins see them, oldest first."""
    answer = call(muster, admin, "GET", f"/audit?user_id={user_id}{more}")
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json()))


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


@pytest.mark.slow
def test_events_of_an_account_are_in_the_audit_log(muster: Muster) -> None:
    boss = muster.admin()
    admin, account = boss.tokens(), muster.register()
    phone, tablet = account.sign_in(), account.sign_in()
    user_id, by = id_of(phone), id_of(admin)
    form = {"username": account.email, "password": PASSWORD}
    with muster.another_client() as browser:
        browser.post("/api/auth/cookie/login", data=form, headers={"Origin": muster.url}).raise_for_status()
    app = App(muster)
    (code,) = app.codes(account, 1)
    for _ in range(2):  # as after a lost response: it is not a second sign-in
        app.exchange(code).raise_for_status()
    muster.client.post("/api/auth/revoke", data={"token": tablet.refresh})
    muster.client.post("/api/auth/revoke", data={"token": tablet.refresh})
    account.confirm()
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    first, phone = phone, Tokens(call(muster, phone, "PUT", "/users/me/password", body).json())
    new = {"email": f"new-{account.email}", "current_password": NEW_PASSWORD}
    assert call(muster, phone, "PUT", "/users/me/email", new).status_code == 202
    token = muster.link_token(new["email"], subject="")
    assert muster.client.post("/api/auth/verify-email", json={"token": token}).status_code == 204
    role, name = {"role": "admin"}, {"name": "Grace"}
    for change in (name, role, role | name, {"is_active": False}, {"is_active": True}):  # events of one moment may swap
        call(muster, admin, "PATCH", f"/users/{user_id}", change).raise_for_status()
    call(muster, admin, "DELETE", f"/users/{user_id}/sessions").raise_for_status()

    events = events_of(muster, admin, user_id)
    mine, theirs = (user_id, "127.0.0.1"), (by, "127.0.0.1")
    assert [(one["event"], (one["actor_id"], one["address"]), one["details"]) for one in events] == [
        ("account-created", (None, "127.0.0.1"), {"role": "user"}),
        ("sign-in", mine, {"method": "password"}),
        ("sign-in", mine, {"method": "password"}),
        ("sign-in", mine, {"method": "cookie"}),
        ("sign-in", mine, {"method": "code"}),
        ("sign-out", mine, {}),
        ("email-verified", mine, {}),
        ("password-changed", mine, {}),
        ("email-change-requested", mine, {}),
        ("email-changed", mine, {}),
        ("account-renamed", theirs, {}),
        ("role-changed", theirs, {"role": "admin"}),
        ("account-disabled", theirs, {}),
        ("account-enabled", theirs, {}),
        ("sessions-revoked", theirs, {}),
    ]
    signed_in, signed_out = [one["session_id"] for one in events[1:3]], events[5]["session_id"]
    assert [*signed_in, signed_out] == [claims_of(tokens.access)["sid"] for tokens in (first, tablet, tablet)]
    assert {one["user_email"] for one in events} == {new["email"]}
    assert events[-1]["actor_email"] == boss.email
    assert names(events_of(muster, admin, user_id, "&event=sign-in")) == ["sign-in"] * 4
    assert len(events_of(muster, admin, user_id, f"&actor_id={by}")) == 5
    found = pages(muster, admin, f"/audit?user_id={user_id}&limit=9")
    assert [one["id"] for page in found for one in page] == [one["id"] for one in reversed(events)]
    for query in ("event=made-up", "user_id=1", "after=AAAA"):
        assert_problem(call(muster, admin, "GET", f"/audit?{query}"), 422, "invalid")


def test_an_event_never_names_the_sender_of_the_previous_request_on_its_connection(muster: Muster) -> None:
    admin, email = muster.admin().tokens(), f"{uuid4().hex}@example.com"
    first = head("GET", "/api/users/me", **admin.bearer)
    body = json.dumps({"email": email, "password": PASSWORD}).encode()
    sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    with closing(socket.create_connection(("127.0.0.1", muster.port), timeout=STARTUP)) as connection:
        connection.sendall(first + head("POST", "/api/auth/register", **sent) + body)  # pipelined
        while connection.recv(2**16):
            pass
    (user,) = call(muster, admin, "GET", f"/users?search={email}").json()
    (event,) = events_of(muster, admin, user["id"])
    assert (event["event"], event["actor_id"]) == ("account-created", None)


def test_a_person_sees_what_happened_to_their_own_account_but_not_which_admin_did_it(muster: Muster) -> None:
    admin, account = muster.admin().tokens(), muster.register(name="Ada")
    tokens = account.sign_in()
    call(muster, admin, "PATCH", f"/users/{id_of(tokens)}", {"name": "Grace"}).raise_for_status()
    answer = call(muster, tokens, "GET", "/users/me/audit")
    assert [(one["event"], one["by"], one["address"]) for one in answer.json()] == [
        ("account-renamed", "administrator", ""),
        ("sign-in", "you", "127.0.0.1"),
        ("account-created", None, "127.0.0.1"),
    ]
    assert id_of(admin) not in answer.text
    assert [len(page) for page in pages(muster, tokens, "/users/me/audit?limit=2")] == [2, 1]


def test_the_log_keeps_the_deletion_of_an_account_and_what_that_account_did_to_others(muster: Muster) -> None:
    admin, other = muster.admin().tokens(), id_of(muster.new_account().tokens())
    gone = muster.new_account(role="admin")
    tokens = gone.sign_in()
    user_id = id_of(tokens)
    call(muster, tokens, "PATCH", f"/users/{other}", {"name": "Grace"}).raise_for_status()
    call(muster, admin, "PATCH", f"/users/{user_id}", {"name": "Eve"}).raise_for_status()
    assert call(muster, tokens, "DELETE", "/users/me", {"current_password": PASSWORD}).status_code == 204
    events = events_of(muster, admin, user_id)
    assert [(one["event"], one["actor_id"], one["address"]) for one in events] == [
        ("account-renamed", id_of(admin), "127.0.0.1"),
        ("account-deleted", user_id, ""),
    ]
    renamed = events_of(muster, admin, other, "&event=account-renamed")
    assert [(one["actor_id"], one["actor_email"], one["address"]) for one in renamed] == [(user_id, None, "")]


def test_refused_passwords_are_recorded_once_an_hour_whatever_an_attacker_does(serve: Callable[..., Muster]) -> None:
    muster = serve(LIMIT_LOGIN_ACCOUNT="3/minute")
    admin, account = muster.admin().tokens(), muster.new_account()
    tokens = account.tokens()
    user_id = id_of(tokens)
    wrong = {"grant_type": "password", "username": account.email, "password": "wrong"}
    assert [muster.token(**wrong).status_code for _ in range(5)] == [400, 400, 400, 429, 429]
    assert muster.token(**wrong | {"username": "nobody@example.com"}).status_code == 400
    body = {"current_password": "wrong", "new_password": NEW_PASSWORD}
    assert call(muster, tokens, "PUT", "/users/me/password", body).status_code == 403

    def refusals(more: str) -> list[dict[str, str]]:
        events = call(muster, admin, "GET", f"/audit?event=sign-in-refused{more}").json()
        return sorted((event["details"] for event in events), key=lambda details: details["reason"])

    expected = [{"reason": reason} for reason in ("current-password", "locked", "password")]
    wait_for(lambda: refusals("") == expected, what="the three")
    assert refusals(f"&user_id={user_id}") == expected


@pytest.mark.one_database
def test_a_refused_password_that_cannot_be_recorded_is_in_the_log(muster: Muster) -> None:
    account, before = muster.new_account(), muster.log_file.stat().st_size
    muster.sql("ALTER TABLE audit_event RENAME TO elsewhere")
    try:
        assert muster.token(grant_type="password", username=account.email, password="wrong").status_code == 400
        line = "a write in the background failed: OperationalError"
        wait_for(lambda: line in muster.log_after(before), what="the line in the log")
    finally:
        muster.sql("ALTER TABLE elsewhere RENAME TO audit_event")


def test_a_rolled_back_event_is_in_neither_log_and_a_theft_is_in_both(muster: Muster) -> None:
    admin, account = muster.admin().tokens(), muster.new_account()
    stolen = account.sign_in()
    newest = Tokens(muster.refresh(Tokens(muster.refresh(stolen.refresh).json()).refresh).json())
    assert muster.me(newest).status_code == 200
    assert muster.refresh(stolen.refresh).json()["error"] == "invalid_grant"
    user_id = id_of(stolen)
    theft = events_of(muster, admin, user_id)[-1]
    assert (theft["event"], theft["actor_id"]) == ("token-reused", None)
    assert f"token-reused user_id={user_id} session_id={theft['session_id']}" in muster.log
    wrong = {"name": "Grace", "role": "nobody"}
    assert_problem(call(muster, admin, "PATCH", f"/users/{user_id}", wrong), 422, "invalid")
    assert "account-renamed" not in names(events_of(muster, admin, user_id))
    assert f"account-renamed user_id={user_id}" not in muster.log


def test_roles_and_clients_are_in_the_audit_log(serve: Callable[..., Muster]) -> None:
    muster = serve()
    admin = muster.admin().tokens()
    call(muster, admin, "PATCH", "/roles/user", {"scopes": ["jobs", "me"]}).raise_for_status()
    client = {"id": "ledger-app", "name": "Ledger", "redirect_uris": ["com.example.app:/signed-in"]}
    call(muster, admin, "POST", "/clients", client).raise_for_status()
    call(muster, admin, "PATCH", "/clients/ledger-app", {"name": "Book"}).raise_for_status()
    call(muster, admin, "DELETE", "/clients/ledger-app").raise_for_status()
    found = call(muster, admin, "GET", f"/audit?actor_id={id_of(admin)}&limit=4").json()
    assert [(one["event"], one["details"]) for one in reversed(found)] == [
        ("role-scopes-changed", {"role": "user", "scopes": "me jobs"}),
        *((f"client-{what}", {"client_id": "ledger-app"}) for what in ("registered", "changed", "removed")),
    ]

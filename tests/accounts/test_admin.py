"""Other people's accounts, the roles, and everybody's sessions: who may see and change them."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.support.assertions import assert_problem
from tests.support.resources import call, pages
from tests.support.servers import PASSWORD, Muster, Tokens, claims_of
from tests.support.sessions import NOBODY, assert_signed_out, id_of

# ---- Required scopes ----


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/users", "users:read"),
        ("GET", f"/users/{NOBODY}", "users:read"),
        ("PATCH", f"/users/{NOBODY}", "users:write"),
        ("DELETE", f"/users/{NOBODY}", "users:write"),
        ("GET", f"/users/{NOBODY}/sessions", "users:read"),
        ("DELETE", f"/users/{NOBODY}/sessions", "users:write"),
        ("DELETE", f"/users/{NOBODY}/sessions/{NOBODY}", "users:write"),
        ("GET", "/roles", "users:read"),
        ("PATCH", "/roles/user", "users:write"),
    ],
)
def test_other_accounts_and_roles_require_an_admin_scope(muster: Muster, method: str, path: str, scope: str) -> None:
    body = {"scopes": ["me"]} if "roles" in path else {}
    user = muster.new_account().tokens()
    admin = muster.admin().sign_in(scope="me users:read" if scope == "users:write" else "me users:write")
    for tokens in (user, admin):
        answer = call(muster, tokens, method, path, body)
        assert_problem(answer, 403, "insufficient-scope")
        assert answer.json()["scope"] == scope
    assert muster.client.request(method, f"/api{path}", json=body).status_code == 401


def test_another_persons_session_reads_as_absent(muster: Muster) -> None:
    ada, eve = muster.new_account().tokens(), muster.new_account().tokens()
    for session_id in (claims_of(ada.access)["sid"], NOBODY):
        assert_problem(call(muster, eve, "DELETE", f"/users/me/sessions/{session_id}"), 404, "session-not-found")
    assert call(muster, eve, "DELETE", "/users/me/sessions").status_code == 204
    assert muster.me(ada).status_code == 200


# ---- Lists and pages ----


@pytest.mark.slow
def test_all_accounts_are_listed_once_oldest_first_page_by_page(serve: Callable[..., Muster]) -> None:
    muster = serve()
    admin = muster.admin().tokens()
    emails = [muster.new_account().email for _ in range(5)]
    found = pages(muster, admin, "/users?limit=2")
    assert [len(page) for page in found] == [2, 2, 2]
    assert [user["email"] for page in found for user in page][1:] == emails
    assert [user["email"] for user in call(muster, admin, "GET", "/users").json()][1:] == emails
    expected = {"id", "email", "name", "role", "scopes", "is_active", "is_verified", "created_at"}
    assert set(found[0][0]) == expected

    link = muster.client.get("/api/users?limit=2", headers={**admin.bearer, "Host": "api.example:8443"}).headers["link"]
    assert re.fullmatch(r'</api/users\?limit=2&after=[A-Za-z0-9_-]+>; rel="next"', link)


@pytest.mark.slow
def test_accounts_are_found_by_the_beginning_of_their_address_or_name(muster: Muster) -> None:
    admin, mark = muster.admin().tokens(), uuid4().hex
    people = [muster.new_account(name=f"{mark.upper()}{end}") for end in (" Ada", "%", "_", "é", "x")]
    ids = [id_of(one.tokens()) for one in people]

    def found(search: str, more: str = "") -> list[str]:
        answer = call(muster, admin, "GET", f"/users?search={quote(search)}{more}")
        assert answer.status_code == 200, answer.text
        return [user["id"] for user in answer.json()]

    assert found(people[0].email.upper()) == [ids[0]]
    assert found(people[0].email[:-2]) == [ids[0]]
    assert found(f" {mark} ad") == [ids[0]]
    assert found(mark) == ids
    assert [found(f"{mark}{end}") for end in ("%", "_", "e\u0301", "x", "\\")] == [
        [ids[1]],
        [ids[2]],
        [ids[3]],
        [ids[4]],
        [],
    ]
    assert found(mark[1:]) == []
    assert [len(page) for page in pages(muster, admin, f"/users?search={mark}&limit=2")] == [2, 2, 1]
    call(muster, admin, "PATCH", f"/users/{ids[1]}", {"role": "admin", "name": f"{mark} renamed"})
    call(muster, admin, "PATCH", f"/users/{ids[2]}", {"is_active": False})
    assert found(mark, "&role=admin") == found(f"{mark} R") == [ids[1]]
    assert found(mark, "&is_active=false") == [ids[2]]
    assert found(mark, "&role=user&is_active=true") == [ids[0], *ids[3:]]
    assert found(mark, "&role=nobody") == []
    for query in ("search=", "search=%00", f"search={'a' * 255}", "is_active=perhaps", "role=%00"):
        assert_problem(call(muster, admin, "GET", f"/users?{query}"), 422, "invalid")


def test_page_size_is_capped_and_a_foreign_cursor_is_rejected(muster: Muster) -> None:
    account = muster.admin()
    admin = account.tokens()
    account.tokens()
    assert call(muster, admin, "GET", "/users?limit=200").status_code == 200
    link = muster.client.get("/api/users/me/sessions?limit=1", headers=admin.bearer).headers["link"]
    cursor = link.partition("after=")[2].partition(">")[0]
    assert call(muster, admin, "GET", f"/users/me/sessions?after={cursor}").status_code == 200
    for query in ("limit=0", "limit=201", "limit=-1", "limit=x", "limit=1e2", f"after={cursor}", "after=AAAA"):
        assert_problem(call(muster, admin, "GET", f"/users?{query}"), 422, "invalid")
    for query in (f"after={cursor[:-3]}AAA", f"after=A{cursor}", "after=%00", "after=ü", f"after={'A' * 501}"):
        answer = call(muster, admin, "GET", f"/users/me/sessions?{query}")
        assert_problem(answer, 422, "invalid")
        assert answer.json()["errors"][0]["loc"] == ["query", "after"]


def test_the_sessions_of_an_account_are_its_live_devices(muster: Muster) -> None:
    account, admin = muster.new_account(), muster.admin().tokens()
    devices = [account.sign_in(device=f"device {number}") for number in range(3)]
    gone = account.tokens()
    muster.client.post("/api/auth/revoke", data={"token": gone.refresh})
    mine = [session for page in pages(muster, devices[1], "/users/me/sessions?limit=2") for session in page]
    assert [session["device"] for session in mine] == ["device 2", "device 1", "device 0"]
    assert [session["current"] for session in mine] == [False, True, False]
    assert set(mine[0]) == {
        *("id", "client_id", "device", "ip", "user_agent"),
        *("scope", "created_at", "last_used_at", "expires_at", "current"),
    }
    path = f"/users/{id_of(gone)}/sessions"
    theirs = [session for page in pages(muster, admin, f"{path}?limit=1") for session in page]
    assert theirs == [{**session, "current": False} for session in mine]

    assert call(muster, devices[0], "DELETE", f"/users/me/sessions/{mine[0]['id']}").status_code == 204
    assert_signed_out(muster, devices[2])
    one = f"{path}/{mine[1]['id']}"
    assert_problem(call(muster, admin, "DELETE", one.replace(id_of(gone), id_of(admin))), 404, "session-not-found")
    assert call(muster, admin, "DELETE", one).status_code == 204
    assert_signed_out(muster, devices[1])
    assert_problem(call(muster, admin, "DELETE", one), 404, "session-not-found")
    assert [session["id"] for session in call(muster, admin, "GET", path).json()] == [mine[2]["id"]]
    assert call(muster, admin, "DELETE", path).status_code == 204
    assert_signed_out(muster, *devices)
    assert call(muster, admin, "GET", path).json() == []


def test_a_person_signs_out_all_other_devices_or_this_one(muster: Muster) -> None:
    account = muster.new_account()
    this, other = account.tokens(), account.tokens()
    assert call(muster, this, "DELETE", "/users/me/sessions").status_code == 204
    assert_signed_out(muster, other)
    assert call(muster, this, "DELETE", f"/users/me/sessions/{claims_of(this.access)['sid']}").status_code == 204
    assert_signed_out(muster, this)


# ---- Changes to an account ----


def test_an_admin_changes_what_is_sent_and_nothing_else(muster: Muster) -> None:
    account, admin = muster.new_account(name="Ada"), muster.admin().tokens()
    path = f"/users/{id_of(account.tokens())}"
    before = call(muster, admin, "GET", path).json()
    assert call(muster, admin, "PATCH", path, {}).json() == before
    promoted = call(muster, admin, "PATCH", path, {"role": "admin"}).json()
    assert (promoted["role"], promoted["name"]) == ("admin", "Ada")
    assert "users:write" in promoted["scopes"]
    assert call(muster, admin, "PATCH", path, {"name": None, "role": "user"}).json() == {**before, "name": None}
    wrong: list[Any] = [{"role": "king"}, {"role": None}, {"role": "a\0b"}, {"role": ""}, {"is_active": None}]
    wrong += [{"email": "x@example.com"}, {"password_hash": "x"}, {"is_verified": True}, {"name": ""}, [], None]
    for body in wrong:
        answer = call(muster, admin, "PATCH", path, body)
        assert (answer.status_code, body) == (422, body)
        assert_problem(answer, 422, "invalid")
    assert call(muster, admin, "GET", path).json() == {**before, "name": None}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_unknown_account_is_404(muster: Muster, method: str) -> None:
    admin = muster.admin().tokens()
    assert_problem(call(muster, admin, method, f"/users/{NOBODY}", {}), 404, "user-not-found")
    assert_problem(call(muster, admin, method, "/users/1", {}), 422, "invalid")
    if method != "PATCH":
        assert_problem(call(muster, admin, method, f"/users/{NOBODY}/sessions"), 404, "user-not-found")


def test_disabling_an_account_ends_its_sessions_for_good(muster: Muster) -> None:
    account, admin = muster.new_account(), muster.admin().tokens()
    phone, tablet = account.tokens(), account.tokens()
    path = f"/users/{id_of(phone)}"
    assert_problem(call(muster, admin, "PATCH", path, {"is_active": 0}), 422, "invalid")
    assert call(muster, admin, "PATCH", path, {"is_active": False}).json()["is_active"] is False
    assert_signed_out(muster, phone, tablet)
    sign_in = {"grant_type": "password", "username": account.email, "password": PASSWORD}
    assert muster.token(**sign_in).json()["error"] == "invalid_grant"
    assert call(muster, admin, "PATCH", path, {"is_active": True}).json()["is_active"] is True
    assert_signed_out(muster, phone)
    assert muster.me(account.sign_in()).status_code == 200


def test_a_deleted_account_is_signed_out_at_once(muster: Muster) -> None:
    account, admin = muster.new_account(), muster.admin().tokens()
    tokens = account.tokens()
    assert call(muster, admin, "DELETE", f"/users/{id_of(tokens)}").status_code == 204
    assert_signed_out(muster, tokens)
    assert_problem(call(muster, admin, "DELETE", f"/users/{id_of(tokens)}"), 404, "user-not-found")


def test_a_demotion_removes_the_scopes_at_the_next_request(muster: Muster) -> None:
    account, admin = muster.admin(), muster.admin().tokens()
    tokens, narrow = account.sign_in(), account.sign_in(scope="users:read")
    assert call(muster, tokens, "GET", "/roles").status_code == 200
    call(muster, admin, "PATCH", f"/users/{id_of(tokens)}", {"role": "user"})
    assert_problem(call(muster, tokens, "GET", "/roles"), 403, "insufficient-scope")
    assert muster.me(tokens).json()["role"] == "user"
    assert "users:read" not in muster.refresh(tokens.refresh).json()["scope"]
    assert muster.refresh(narrow.refresh).json()["error"] == "invalid_scope"


# ---- Roles ----


@pytest.mark.slow
def test_the_scopes_of_a_role_change_at_the_next_request(serve: Callable[..., Muster]) -> None:
    muster = serve()
    admin, user = muster.admin().tokens(), muster.new_account().tokens()
    assert [role["name"] for role in call(muster, admin, "GET", "/roles").json()] == ["admin", "user"]
    changed = call(muster, admin, "PATCH", "/roles/user", {"scopes": ["jobs", "users:read", "jobs"]})
    assert changed.json() == {"name": "user", "scopes": ["jobs", "users:read"]}
    assert_problem(call(muster, user, "GET", "/users/me"), 403, "insufficient-scope")
    assert muster.refresh(user.refresh).json()["scope"] == "jobs users:read"
    again = Tokens(muster.refresh(user.refresh).json())
    assert call(muster, again, "GET", "/users").status_code == 200

    wrong: list[Any] = [[], ["nonsense"], None, ["me\0"], "me", [1]]
    for body in [{}, {"scopes": ["me"], "name": "x"}, *({"scopes": scopes} for scopes in wrong)]:
        answer = call(muster, admin, "PATCH", "/roles/user", body)
        assert_problem(answer, 422, "invalid")
        assert "nonsense" not in answer.text
    for name, status in (("king", 404), ("%00", 404), ("a%2Fb", 404), ("x" * 51, 422)):
        answer = call(muster, admin, "PATCH", f"/roles/{name}", {"scopes": ["me"]})
        assert answer.status_code == status, (name, answer.text)
    for scopes in (["me"], ["me", "users:read"], ["users:write"]):
        assert_problem(call(muster, admin, "PATCH", "/roles/admin", {"scopes": scopes}), 409, "last-admin")
    assert call(muster, admin, "GET", "/users").status_code == 200

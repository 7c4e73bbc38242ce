"""People of an identity provider: the first token creates an account without a password; what the provider decides."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, time
from typing import Any

import httpx
import pytest

from tests.support.assertions import assert_oauth_error, assert_problem
from tests.support.bearer_tokens import ABSENT
from tests.support.concurrency import at_once
from tests.support.keycloak import SCOPE, Keycloak, bearer, use
from tests.support.ledgers import OPERATION
from tests.support.mailed_links import new_link, reset_password
from tests.support.servers import PASSWORD, Account, Muster, Tokens, wait_for
from tests.support.sockets import Socket, new_room

ME = "/api/users/me"


def new_person(external: Muster, keycloak: Keycloak, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The claims of a token, and the account that was made for it."""
    claims = keycloak.claims(**changes)
    answer = use(external, keycloak.token(**claims))
    assert answer.status_code == 200, answer.text
    return claims, answer.json()


def accounts_of(external: Muster, email: str) -> int:
    return int(external.sql('SELECT count(*) FROM "user" WHERE email = :email', email=email)[0][0])


# ---- The first request of a person ----


def test_many_first_requests_of_a_person_make_one_account(external: Muster, keycloak: Keycloak) -> None:
    claims = keycloak.claims(scope="me operations:write")
    first, second = keycloak.token(**claims), keycloak.token(**{**claims, "email": "second." + claims["email"]})

    def work(token: str, method: str) -> Callable[[], httpx.Response]:
        body = OPERATION if method == "POST" else None
        path = "/api/operations" if body else ME
        return lambda: external.client.request(method, path, json=body, headers=bearer(token))

    answers = at_once(*[work(token, method) for token in (first, second) for method in ("GET", "POST") * 5])
    assert {answer.status_code for answer in answers} == {200, 201}, [answer.text for answer in answers]
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 200}
    owners = {answer.json()["owner_id"] for answer in answers if answer.status_code == 201}
    assert len(ids) == 1
    assert owners == ids
    assert accounts_of(external, claims["email"]) + accounts_of(external, "second." + claims["email"]) == 1


def test_an_address_that_is_taken_links_nobody(external: Muster, keycloak: Keycloak) -> None:
    ada = external.new_account(is_verified=True)
    for _ in range(2):
        answer = use(external, keycloak.token(email=ada.email.upper()))
        assert_problem(answer, 409, "email-taken")
        assert answer.json()["field"] == "email"
    claims, me = new_person(external, keycloak)
    assert_problem(use(external, keycloak.token(email=claims["email"])), 409, "email-taken")
    assert use(external, keycloak.token(**{**claims, "email": ada.email})).json() == me


def test_an_unverified_account_keeps_its_address_from_a_person_who_did_not_verify_it_either(
    external: Muster, keycloak: Keycloak
) -> None:
    first = external.new_account()
    answer = use(external, keycloak.token(email=first.email, email_verified=False))
    assert_problem(answer, 409, "email-taken")
    assert external.me(first.tokens()).json()["email"] == first.email
    assert accounts_of(external, first.email) == 1


def test_an_unverified_account_loses_its_address_to_the_person_who_verified_it(
    external: Muster, keycloak: Keycloak
) -> None:
    squatter = external.new_account()
    tokens = squatter.tokens()
    answer = use(external, keycloak.token(email=squatter.email, email_verified=True))
    assert (answer.json()["email"], answer.json()["is_verified"]) == (squatter.email, True)
    left = external.me(tokens).json()
    assert left["email"] == f"{left['id']}@unverified.invalid"
    assert left["id"] != answer.json()["id"]
    signed_in = external.token(grant_type="password", username=squatter.email, password=PASSWORD)
    assert_oauth_error(signed_in, 400, "invalid_grant")
    body = {"email": f"{left['id']}@example.com", "current_password": PASSWORD}
    assert external.client.put("/api/users/me/email", json=body, headers=tokens.bearer).status_code == 202
    external.mails(external.register().email)  # mails leave in order: those before have left
    assert external.sent_mails(body["email"])
    assert external.sent_mails(left["email"]) == []


@pytest.mark.one_database
def test_userinfo_supplies_what_the_token_lacks(external: Muster, keycloak: Keycloak) -> None:
    claims = keycloak.claims(email=ABSENT, email_verified=ABSENT, name=ABSENT)
    sub = claims["sub"]
    keycloak.people[sub] = {"sub": sub, "email": f"{sub}@example.org", "email_verified": True, "name": "Grace"}
    me = use(external, keycloak.keys[0].sign(claims)).json()
    assert (me["email"], me["name"], me["is_verified"]) == (f"{sub}@example.org", "Grace", True)
    asked = keycloak.asked["userinfo"]
    assert use(external, keycloak.keys[1].sign(claims)).json() == me
    assert keycloak.asked["userinfo"] == asked


@pytest.mark.one_database
@pytest.mark.parametrize("userinfo", ["nothing", "refused", "nonsense", "another"])
def test_no_account_is_created_without_an_email_address(external: Muster, keycloak: Keycloak, userinfo: str) -> None:
    email = None if userinfo == "nothing" else "no address"
    claims = keycloak.claims(email=email)
    sub = claims["sub"]
    answers = {"nothing": {"sub": sub}, "nonsense": {"sub": sub, "email": ["x"]}, "refused": 403}
    keycloak.people[sub] = answers.get(userinfo, {"sub": "another", "email": f"{sub}@example.com"})
    asked = keycloak.asked["userinfo"]
    for _ in range(3):
        assert_problem(use(external, keycloak.token(**claims)), 403, "email-missing")
    assert keycloak.asked["userinfo"] == asked + 1
    assert external.sql("SELECT 1 FROM identity WHERE subject = :sub", sub=sub) == []


def test_concurrent_first_requests_create_one_account(external: Muster, keycloak: Keycloak) -> None:
    claims = keycloak.claims(email=ABSENT)
    sub = claims["sub"]
    keycloak.people[sub] = {"sub": sub, "email": f"{sub}@example.org"}
    new_person(external, keycloak)  # the provider's keys are known from here on
    asked = keycloak.asked["userinfo"]
    with ThreadPoolExecutor(5) as pool:
        with keycloak.silent():
            first_sights = [pool.submit(use, external, keycloak.keys[0].sign(claims)) for _ in range(5)]
            wait_for(lambda: keycloak.asked["userinfo"] > asked, what="a request to the provider")
        answers = [each.result() for each in first_sights]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.one_database
def test_an_invalid_name_is_dropped_and_only_true_means_verified(external: Muster, keycloak: Keycloak) -> None:
    for name in ("", "a\0b", "x" * 200, 7, "\ud800"):
        _claims, me = new_person(external, keycloak, name=name, email_verified="true")
        assert (me["name"], me["is_verified"]) == (None, False)


@pytest.mark.one_database
def test_openapi_documents_the_errors_of_a_persons_first_request(external: Muster) -> None:
    responses = external.client.get("/api/openapi.json").json()["paths"]["/api/operations"]["get"]["responses"]
    for status, kind in (("403", "email-missing"), ("409", "email-taken"), ("503", "provider-unavailable")):
        assert kind in responses[status]["content"]["application/problem+json"]["examples"]


@pytest.mark.slow
def test_a_known_person_and_one_just_refused_take_one_statement(
    folder: Path, keycloak: Keycloak, database_url: str
) -> None:
    with Muster(
        database_url, folder, app="tests.support.apps.statement_counter:app", OIDC_ISSUER=keycloak.issuer
    ) as counting:
        claims, _me = new_person(counting, keycloak)
        answers = [use(counting, keycloak.token(**claims)) for _ in range(2)]
        assert [answer.headers["statements"] for answer in answers] == ["1", "1"]
        account = counting.new_account(is_verified=True)  # an address that nobody confirmed would give way
        token = keycloak.token(email=account.email)
        answers = [use(counting, token) for _ in range(3)]
        for answer in answers:
            assert_problem(answer, 409, "email-taken")
        assert [answer.headers["statements"] for answer in answers[1:]] == ["1", "1"]


# ---- Without a password ----


def test_an_account_of_the_provider_has_no_password_to_use_change_or_reset(
    external: Muster, keycloak: Keycloak
) -> None:
    claims, me = new_person(external, keycloak)
    headers, email = bearer(keycloak.token(**claims)), me["email"]
    for guess in (PASSWORD, "decoy", "None"):
        answer = external.token(grant_type="password", username=email, password=guess)
        assert_oauth_error(answer, 400, "invalid_grant")
    for path, body in (("password", {"new_password": "copper-lantern-meadow"}), ("email", {"email": "x@example.com"})):
        answer = external.client.put(f"{ME}/{path}", json={**body, "current_password": PASSWORD}, headers=headers)
        assert_problem(answer, 403, "password-elsewhere")
    other = external.new_account()
    for address in (email, other.email):  # mails leave in order: when the second one's is there, the first had none
        answer = external.client.post("/api/auth/forgot-password", json={"email": address})
        assert answer.status_code == 202
    assert external.mails(other.email, subject="Reset")
    forged = new_link(external, Account(external, email, ""), "reset")  # with SECRET_KEYS, and what others may know
    assert_problem(reset_password(external, forged), 400, "invalid-link")
    assert external.sent_mails(email) == []


def test_an_account_is_deleted_after_a_new_sign_in_at_the_provider(external: Muster, keycloak: Keycloak) -> None:
    claims, me = new_person(external, keycloak)

    def delete(token: str, body: dict[str, str]) -> httpx.Response:
        return external.client.request("DELETE", ME, json=body, headers=bearer(token))

    for auth_time in (int(time()) - 310, ABSENT):
        token = keycloak.token(**{**claims, "auth_time": auth_time})
        for body in ({}, {"current_password": PASSWORD}):
            assert_problem(delete(token, body), 403, "sign-in-again")
    assert delete(keycloak.token(**{**claims, "auth_time": int(time()) - 200}), {}).status_code == 204
    assert accounts_of(external, me["email"]) == 0
    assert external.sql("SELECT 1 FROM identity WHERE subject = :sub", sub=claims["sub"]) == []
    assert new_person(external, keycloak, sub=claims["sub"])[1]["id"] != me["id"]


@pytest.mark.one_database
def test_deleting_an_account_with_a_password_still_requires_it(external: Muster) -> None:
    tokens = external.new_account().tokens()
    answer = external.client.request("DELETE", ME, json={}, headers=tokens.bearer)
    assert_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["loc"] == ["body", "current_password"]
    assert external.me(tokens).status_code == 200


# ---- Sessions ----


@pytest.mark.one_database
def test_the_list_of_sessions_omits_those_of_the_provider(external: Muster, keycloak: Keycloak) -> None:
    claims, _me = new_person(external, keycloak)
    headers = bearer(keycloak.token(**claims))
    assert external.client.get(f"{ME}/sessions", headers=headers).json() == []
    assert external.client.delete(f"{ME}/sessions", headers=headers).status_code == 204
    assert use(external, keycloak.token(**claims)).status_code == 200


@pytest.mark.slow
def test_disabling_an_account_stops_requests_at_once_and_sockets_within_30_seconds(
    serve: Callable[..., Muster], keycloak: Keycloak
) -> None:
    """The instance has just been started, so most of the time between two checks of the sessions is still to pass."""
    external = serve(OIDC_ISSUER=keycloak.issuer)
    may: dict[str, Any] = {"scope": f"{SCOPE} chat"}
    admin, (claims, me) = external.admin().tokens(), new_person(external, keycloak, **may)
    demoted, other = new_person(external, keycloak, **may)
    stays, room = keycloak.token(**may), new_room()
    external.sql("INSERT INTO role (name, scopes) VALUES ('silent', '[\"me\"]')")
    with (
        Socket(external, Tokens(access_token=keycloak.token(**claims)), room=room) as disabled,
        Socket(external, Tokens(access_token=keycloak.token(**demoted)), room=room) as silent,
        Socket(external, Tokens(access_token=keycloak.token(exp=int(time()) + 5, **may)), room=room) as ended,
        Socket(external, Tokens(access_token=stays), room=room) as staying,
    ):
        for socket in (disabled, silent, ended, staying):
            socket.ready()
        assert ended.closed() == 4401
        began = monotonic()
        users = "/api/users/"
        assert external.client.patch(users + other["id"], json={"role": "silent"}, headers=admin.bearer).is_success
        assert external.client.patch(users + me["id"], json={"is_active": False}, headers=admin.bearer).is_success
        assert_problem(use(external, keycloak.token(**claims)), 401, "invalid-token")
        assert [disabled.closed(), silent.closed()] == [4401, 4403]
        assert monotonic() - began < 30
        staying.say("Hello")
        assert staying.message()["text"] == "Hello"


# ---- Roles ----


@pytest.mark.slow
def test_realm_roles_set_the_role_and_an_older_token_restores_none(
    serve: Callable[..., Muster], keycloak: Keycloak
) -> None:
    muster, now = serve(OIDC_ISSUER=keycloak.issuer, OIDC_ROLE_MAP="muster-admin=admin,muster-user=user"), int(time())

    def role(claims: dict[str, Any], age: int, *roles: str, **more: Any) -> Any:
        changes = {"iat": now - age, "realm_access": {"roles": ["offline_access", *roles]}, **more}
        answer = use(muster, keycloak.token(**{**claims, **changes}))
        assert answer.status_code == 200, answer.text
        return answer.json()["role"]

    boss, user = keycloak.claims(), keycloak.claims()
    assert role(boss, 100, "muster-user", "muster-admin") == "admin"
    assert role(user, 100, "muster-user") == "user"
    assert role(user, 90) == "user"
    assert role(user, 95, "muster-admin") == "user"  # older than one whose roles changed nothing
    assert role(user, 80, "muster-admin") == "admin"
    users = muster.client.get("/api/users", headers=bearer(keycloak.token(**{**user, "iat": now - 70})))
    assert users.json()["type"] == "/problems/insufficient-scope"  # that token is newer, and has no such role
    for claims in (user, boss):
        assert role(claims, 60, "muster-user") == "user"  # also of the last admin
        assert role(claims, 75, "muster-admin") == "user"
    assert role(boss, 50, realm_access={"roles": "muster-admin"}) == "user"
    log = muster.log
    assert log.count("identity-added") == 2
    assert log.count("role-changed") == 3
    assert not any(secret in log for claims in (boss, user) for secret in (claims["email"], "eyJ"))


@pytest.mark.one_database
@pytest.mark.slow
def test_a_mapped_role_that_does_not_exist_is_a_503(serve: Callable[..., Muster], keycloak: Keycloak) -> None:
    muster = serve(OIDC_ISSUER=keycloak.issuer, OIDC_ROLE_MAP="muster-user=nobody")
    answer = use(muster, keycloak.token())
    assert_problem(answer, 503, "roles-missing")
    assert "no role nobody" in answer.json()["detail"]

"""Mailed links: forgotten passwords, verified addresses, and a change of address. Each works once, for one hour."""

from datetime import timedelta
from functools import partial
from typing import get_args
from uuid import UUID, uuid4

import httpx
import pytest
from sqlmodel import Session

from app.accounts.users import find_user
from app.models.user import LinkKind
from tests.support.assertions import assert_problem
from tests.support.concurrency import at_once
from tests.support.mailed_links import (
    CONFIRM,
    CONFIRM_NEW,
    NEW_PASSWORD,
    RESET,
    ask,
    mailed_reset,
    new_link,
    reset_password,
)
from tests.support.servers import PASSWORD, Account, Muster, Tokens, text_of
from tests.support.sessions import assert_signed_out

KINDS: tuple[LinkKind, ...] = get_args(LinkKind)


def verify(muster: Muster, token: str) -> httpx.Response:
    return muster.client.post("/api/auth/verify-email", json={"token": token})


def renew(muster: Muster, token: str) -> httpx.Response:
    return muster.client.post("/api/auth/renew-link", json={"token": token})


def change_email(muster: Muster, tokens: Tokens, email: str, password: str = PASSWORD) -> httpx.Response:
    body = {"email": email, "current_password": password}
    return muster.client.put("/api/users/me/email", json=body, headers=tokens.bearer)


def moving(muster: Muster, tokens: Tokens) -> tuple[str, str]:
    """A requested new address, and the token of the link mailed to it."""
    email = f"{uuid4().hex}@example.com"
    assert change_email(muster, tokens, email).status_code == 202
    return email, muster.link_token(email, subject=CONFIRM_NEW)


def sign_in(muster: Muster, email: str, password: str = PASSWORD) -> httpx.Response:
    return muster.token(grant_type="password", username=email, password=password)


def assert_dead(answer: httpx.Response) -> None:
    assert_problem(answer, 400, "invalid-link")


# ---- A forgotten password ----


@pytest.mark.parametrize("what", ["forgot-password", "request-verification"])
def test_the_response_is_the_same_for_every_address_and_only_an_open_account_gets_mail(
    muster: Muster, what: str
) -> None:
    known, disabled = muster.register(), muster.register()
    unknown = Account(muster, f"{uuid4().hex}@example.com", PASSWORD)
    everybody = (disabled, unknown, known)  # mails are sent in order: once the last one has come, the others have not
    for account in (known, disabled):
        muster.mails(account.email)
    muster.sql('UPDATE "user" SET is_active = false WHERE email = :email', email=disabled.email)
    answers = [ask(muster, what, account.email) for account in everybody]
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, b"")}
    assert len({frozenset(answer.headers) for answer in answers}) == 1
    assert len(muster.mails(known.email, at_least=2)) == 2
    assert len(muster.mails(disabled.email)) == 1


def test_a_reset_sets_the_password_ends_every_session_and_verifies_the_address(muster: Muster) -> None:
    account = muster.new_account()
    phone, tablet = account.tokens(), account.tokens()
    token = mailed_reset(muster, account)
    assert reset_password(muster, token).status_code == 204
    assert_signed_out(muster, phone, tablet)
    assert sign_in(muster, account.email).json()["error"] == "invalid_grant"
    tokens = Tokens(sign_in(muster, account.email, NEW_PASSWORD).json())
    assert muster.me(tokens).json()["is_verified"] is True
    assert muster.mails(account.email, subject="Your password was changed")
    assert_dead(reset_password(muster, token, "another-lantern-meadow"))


def test_a_rejected_password_does_not_consume_the_link(muster: Muster) -> None:
    account = muster.new_account()
    token = mailed_reset(muster, account)
    for refused in ("tiny-9", account.email, "password1"):
        answer = reset_password(muster, token, refused)
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "new_password"])
        assert refused not in answer.text
        assert token not in answer.text
    assert reset_password(muster, token).status_code == 204


def test_one_of_two_concurrent_resets_wins(muster: Muster) -> None:
    account = muster.new_account()
    token = mailed_reset(muster, account)
    passwords = ["first-lantern-meadow", "second-lantern-meadow"]
    answers = at_once(*(partial(reset_password, muster, token, new) for new in passwords))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [204, 400]
    assert [sign_in(muster, account.email, new).is_success for new in passwords] == [s == 204 for s in statuses]


# ---- A verified address ----


def test_a_verification_link_works_once(muster: Muster) -> None:
    account = muster.register()
    tokens, token = account.tokens(), muster.link_token(account.email, subject=CONFIRM)
    assert muster.me(tokens).json()["is_verified"] is False
    assert verify(muster, token).status_code == 204
    assert muster.me(tokens).json()["is_verified"] is True
    assert_problem(verify(muster, token), 409, "already-confirmed")


def test_a_confirmation_link_is_recognized_after_a_reset_however_old_it_is(muster: Muster) -> None:
    account, other = muster.new_account(), muster.new_account()
    links = [new_link(muster, account, "verification", age=timedelta(hours=hours)) for hours in (30, 0)]
    assert reset_password(muster, new_link(muster, account, "reset")).status_code == 204
    for token in links:
        assert_problem(verify(muster, token), 409, "already-confirmed")
        assert_problem(renew(muster, token), 409, "already-confirmed")
    forged = links[1][:-1] + ("A" if links[1][-1] != "A" else "E")
    assert_dead(verify(muster, forged))
    assert_dead(verify(muster, new_link(muster, other, "reset")))


def test_a_verified_address_gets_no_further_link(muster: Muster) -> None:
    verified, other = muster.register(), muster.register()
    assert verify(muster, muster.link_token(verified.email, subject=CONFIRM)).status_code == 204
    for account in (verified, other):  # in order: once the second mail has come, the first one has not
        assert ask(muster, "request-verification", account.email).status_code == 202
    assert len(muster.mails(other.email, at_least=2)) == 2
    assert len(muster.mails(verified.email)) == 1


# ---- A change of address ----


def test_the_link_changes_the_address_and_the_old_address_is_notified(muster: Muster) -> None:
    account = muster.new_account()
    tokens = account.tokens()
    email, token = moving(muster, tokens)
    warning = muster.mails(account.email, subject="about to change")[-1]
    assert "#token=" not in text_of(warning)
    assert muster.me(tokens).json()["email"] == account.email
    assert sign_in(muster, email).status_code == 400
    assert verify(muster, token).status_code == 204
    me = muster.me(tokens).json()
    assert (me["email"], me["is_verified"]) == (email, True)
    assert sign_in(muster, email).status_code == 200
    assert sign_in(muster, account.email).json()["error"] == "invalid_grant"
    assert_dead(verify(muster, token))
    assert muster.mails(account.email, subject="Your e-mail address was changed")


def test_a_change_of_address_needs_the_password(muster: Muster) -> None:
    account, email = muster.new_account(), f"{uuid4().hex}@example.com"
    tokens = account.tokens()
    assert_problem(change_email(muster, tokens, email, "a-wrong-password"), 403, "wrong-password")
    assert_dead(verify(muster, new_link(muster, account, "email_change", new_email=email)))


@pytest.mark.slow
def test_an_address_registered_by_someone_else_in_the_meantime_is_not_taken_over(muster: Muster) -> None:
    tokens = muster.new_account().tokens()
    email, token = moving(muster, tokens)
    assert muster.client.post("/api/auth/register", json={"email": email, "password": PASSWORD}).status_code == 201
    assert_problem(verify(muster, token), 409, "email-taken")
    assert muster.me(tokens).json()["email"] != email


# ---- Every kind of link ----


@pytest.mark.one_database
@pytest.mark.parametrize(("minutes", "status"), [(59, 204), (60, 400), (600, 400)])
@pytest.mark.parametrize("link", KINDS)
def test_a_link_works_for_one_hour(muster: Muster, link: LinkKind, minutes: int, status: int) -> None:
    account, _ = pending(muster)
    token = new_link(muster, account, link, age=timedelta(minutes=minutes))
    assert redeem(muster, link, token).status_code == status


def pending(muster: Muster) -> tuple[Account, Tokens]:
    """An account that can have a link of each kind: unverified, with a pending change of address."""
    account, email = muster.new_account(), f"{uuid4().hex}@example.com"
    muster.sql('UPDATE "user" SET new_email = :new WHERE email = :email', new=email, email=account.email)
    return account, account.tokens()


def redeem(muster: Muster, kind: LinkKind, token: str) -> httpx.Response:
    return reset_password(muster, token) if kind == "reset" else verify(muster, token)


# docs/security-tests.md has this table for readers.
ENDINGS = ("password", "reset", "disabled", "disabled and enabled", "signed out by an admin", "deleted", "new address")


def end(muster: Muster, account: Account, tokens: Tokens, how: str) -> None:
    client, admin = muster.client, muster.admin().tokens().bearer
    user, password = f"/api/users/{muster.me(tokens).json()['id']}", {"current_password": PASSWORD}
    match how:
        case "password":
            body = {**password, "new_password": NEW_PASSWORD}
            answer = client.put("/api/users/me/password", json=body, headers=tokens.bearer)
        case "reset":
            answer = reset_password(muster, new_link(muster, account, "reset"))
        case "disabled" | "disabled and enabled":
            answer = client.patch(user, json={"is_active": False}, headers=admin)
            if how != "disabled":
                answer = client.patch(user, json={"is_active": True}, headers=admin)
        case "signed out by an admin":
            answer = client.delete(f"{user}/sessions", headers=admin)
        case "deleted":
            answer = client.request("DELETE", "/api/users/me", json=password, headers=tokens.bearer)
        case _:
            answer = verify(muster, moving(muster, tokens)[1])
    assert answer.is_success, answer.text


@pytest.mark.parametrize("how", ENDINGS)
def test_a_change_of_ownership_ends_every_link_and_the_pending_address(muster: Muster, how: str) -> None:
    account, tokens = pending(muster)
    user_id = UUID(muster.me(tokens).json()["id"])
    links = {link: new_link(muster, account, link, age=timedelta(minutes=1)) for link in KINDS}
    end(muster, account, tokens, how)
    for link, token in links.items():
        if (how, link) == ("reset", "verification"):
            assert_problem(redeem(muster, link, token), 409, "already-confirmed")
        else:
            assert_dead(redeem(muster, link, token))
            assert "renewable" not in renew(muster, token).json()
    with Session(muster.engine) as session:
        user = find_user(session, user_id)
    assert user is None or user.new_email is None


@pytest.mark.parametrize("link", KINDS)
def test_a_newer_link_ends_the_older_ones_of_its_kind(muster: Muster, link: LinkKind) -> None:
    account, tokens = pending(muster)
    older = new_link(muster, account, link, age=timedelta(minutes=1))
    if link == "email_change":
        (row,) = muster.sql('SELECT new_email FROM "user" WHERE email = :email', email=account.email)
        assert change_email(muster, tokens, row.new_email).status_code == 202
        newer = muster.link_token(row.new_email, subject=CONFIRM_NEW)
    else:
        what, subject = {"reset": ("forgot-password", RESET), "verification": ("request-verification", CONFIRM)}[link]
        assert ask(muster, what, account.email).status_code == 202
        newer = muster.link_token(account.email, subject=subject)
    assert_dead(redeem(muster, link, older))
    assert redeem(muster, link, newer).status_code == 204


@pytest.mark.parametrize("link", KINDS)
def test_an_expired_link_is_renewed_to_the_address_that_it_was_mailed_to(muster: Muster, link: LinkKind) -> None:
    account, _ = pending(muster)
    (row,) = muster.sql('SELECT new_email FROM "user" WHERE email = :email', email=account.email)
    recipient = row.new_email if link == "email_change" else account.email
    subject = {"reset": RESET, "verification": CONFIRM, "email_change": CONFIRM_NEW}[link]
    expired = new_link(muster, account, link, age=timedelta(hours=2))
    refused = redeem(muster, link, expired)
    assert_dead(refused)
    assert refused.json()["renewable"] is True
    assert_dead(renew(muster, expired[:-2] + "AA"))
    assert renew(muster, expired).status_code == 202
    assert redeem(muster, link, muster.link_token(recipient, subject=subject)).status_code == 204
    again = renew(muster, expired)
    if link == "verification":
        assert_problem(again, 409, "already-confirmed")
    else:
        assert_dead(again)


def test_a_link_of_one_kind_is_invalid_for_any_other_purpose(muster: Muster) -> None:
    account = muster.new_account()
    tokens = account.tokens()
    change_email(muster, tokens, f"{uuid4().hex}@example.com")
    assert_dead(reset_password(muster, new_link(muster, account, "verification")))
    assert_dead(reset_password(muster, new_link(muster, account, "email_change")))
    for token in (new_link(muster, account, "reset"), tokens.refresh, tokens.access[:72]):
        assert_dead(verify(muster, token))
    assert muster.me(tokens).json()["is_verified"] is False


def test_an_altered_or_incomplete_token_is_rejected(muster: Muster) -> None:
    account = muster.new_account()
    token = mailed_reset(muster, account)
    altered = [f"{token}=", f" {token}"]
    for position in (0, 1, 5, 30, 45, 71):
        other = "A" if token[position] != "A" else "B"
        altered += [token[:position] + other + token[position + 1 :], token[:position]]
    for each in altered:
        assert_dead(reset_password(muster, each))
        assert_dead(verify(muster, each))
    assert reset_password(muster, token).status_code == 204

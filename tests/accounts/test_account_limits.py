"""Limits of an account: wrong passwords by network and from everywhere, and mails. A signed-in device keeps working."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.accounts.limits import ACCOUNT_CEILING
from tests.support.assertions import assert_limited
from tests.support.databases import fresh_database
from tests.support.mailed_links import NEW_PASSWORD, mailed_reset, reset_password
from tests.support.servers import PASSWORD, Muster, wait_for

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

WRONG = "a-wrong-password"
CEILING = 20  # of tests.support.apps.low_ceiling


@pytest.fixture(scope="module")
def strict(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance that accepts three wrong passwords for an account; each test has accounts of its own."""
    settings = {"LIMIT_LOGIN_ACCOUNT": "3/5minute", "TRUSTED_PROXIES": "127.0.0.1"}
    with (
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, app="tests.support.apps.low_ceiling:app", **settings) as served,
    ):
        yield served


def guess(muster: Muster, email: str, password: str = WRONG, address: str = "192.0.2.1") -> httpx.Response:
    form = {"grant_type": "password", "username": email, "password": password}
    return muster.client.post("/api/auth/token", data=form, headers={"X-Forwarded-For": address})


def guesses(muster: Muster, email: str, *passwords: str) -> list[int]:
    return [guess(muster, email, password).status_code for password in passwords]


def test_wrong_passwords_are_limited_whether_or_not_the_account_exists(strict: Muster) -> None:
    for email in (strict.new_account().email, f"{uuid4().hex}@example.com", uuid4().hex):
        spellings = [email, email.upper() if "@" in email else email, f" {email}" if "@" in email else email]
        assert [guess(strict, spelling).status_code for spelling in spellings] == [400, 400, 400]
        assert_limited(guess(strict, email, PASSWORD), "password", "q=3;w=300")


def test_a_limited_account_locks_out_neither_its_sessions_nor_other_networks(strict: Muster) -> None:
    account, other = strict.new_account(), strict.new_account()
    tokens = account.sign_in()
    assert guesses(strict, account.email, WRONG, WRONG, WRONG, PASSWORD) == [400, 400, 400, 429]
    assert strict.me(tokens).status_code == strict.refresh(tokens.refresh).status_code == 200
    assert guess(strict, other.email, PASSWORD).status_code == 200
    assert guess(strict, account.email, PASSWORD, address="198.51.100.1").status_code == 200


def test_the_right_password_resets_the_count_of_wrong_ones(strict: Muster) -> None:
    email = strict.new_account().email
    for _ in range(3):
        assert guesses(strict, email, WRONG, WRONG, PASSWORD) == [400, 400, 200]
    assert guesses(strict, email, WRONG, WRONG, WRONG, PASSWORD) == [400, 400, 400, 429]


def test_concurrent_wrong_passwords_do_not_exceed_the_limit(strict: Muster) -> None:
    email = strict.new_account().email
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: guess(strict, email).status_code, range(16)))
    assert sorted(statuses) == [400] * 3 + [429] * 13


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/password", {"new_password": "copper-lantern-meadow"}),
        ("PUT", "/email", {"email": "new@example.com"}),
        ("DELETE", "", {}),
    ],
    ids=["password", "address", "deletion"],
)
def test_an_access_token_allows_no_additional_password_attempts(
    strict: Muster, method: str, path: str, body: dict[str, Any]
) -> None:
    account = strict.new_account()
    tokens = account.sign_in()

    def prove(password: str) -> httpx.Response:
        sent = {"current_password": password, **body}
        return strict.client.request(method, f"/api/users/me{path}", json=sent, headers=tokens.bearer)

    assert [prove(WRONG).status_code for _ in range(3)] == [403, 403, 403]
    assert_limited(prove(PASSWORD), "password", "q=3;w=300")
    assert strict.me(tokens).status_code == 200


def test_password_confirmations_are_counted_by_person_whatever_their_outcome(strict: Muster) -> None:
    account = strict.new_account()
    body = {"email": "new@example.com", "current_password": PASSWORD}

    def prove(number: int) -> httpx.Response:
        headers = {**account.tokens().bearer, "X-Forwarded-For": f"192.0.2.{number}"}
        return strict.client.put("/api/users/me/email", json=body, headers=headers)

    assert [prove(number).status_code for number in range(3)] == [202, 202, 202]
    assert_limited(prove(4), "password", "q=3;w=300")
    account.sign_in()  # which is counted separately


def test_a_network_has_its_own_share_of_the_queue_and_never_takes_that_of_another(strict: Muster) -> None:
    others = [strict.new_account() for _ in range(5)]
    refused: Counter[int] = Counter()
    over = Event()

    def flood(number: int) -> None:
        while not over.wait(0.3):  # more of them come back in this time than hashes are computed
            refused[guess(strict, f"{number}-{uuid4().hex}@example.com").status_code] += 1

    with ThreadPoolExecutor(48) as pool:
        floods = [pool.submit(flood, number) for number in range(48)]
        try:
            wait_for(lambda: refused[503] or any(each.done() for each in floods), what="a full share")
            statuses = [guess(strict, account.email, PASSWORD, "198.51.100.7").status_code for account in others]
        finally:
            over.set()
            for each in floods:
                each.result()
    assert statuses == [200] * 5


@pytest.mark.parametrize("what", ["forgot-password", "request-verification"])
def test_mails_to_an_address_are_limited_whether_or_not_an_account_exists(strict: Muster, what: str) -> None:
    account = strict.new_account()
    for email in (account.email, f"{uuid4().hex}@example.com"):
        answers = [strict.client.post(f"/api/auth/{what}", json={"email": email}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
        assert_limited(answers[-1], "mail", "q=3;w=300")
    account.sign_in()


def test_strangers_on_all_networks_share_a_ceiling_that_the_owner_neither_raises_nor_reaches(strict: Muster) -> None:
    assert (ACCOUNT_CEILING.amount, ACCOUNT_CEILING.get_expiry()) == (100, 3600), "of the service itself"
    account = strict.new_account()
    account.sign_in()  # from 127.0.0.1, a network with a live session from now on
    for numbers in (range(CEILING // 2), range(CEILING // 2, CEILING)):
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda number: _attack(strict, account.email, f"192.0.2.{number}"), numbers)
            assert set(answers) == {(400, 202)}
        for _ in range(5):
            account.sign_in()  # allows the strangers no additional attempts
    for password in (WRONG, PASSWORD):
        refused = guess(strict, account.email, password, "198.51.100.1")
        assert_limited(refused, "password", f"q={CEILING};w=3600")
    account.sign_in()

    token = mailed_reset(strict, account)
    assert reset_password(strict, token).status_code == 204
    assert guess(strict, account.email, NEW_PASSWORD, "198.51.100.1").status_code == 200


def _attack(muster: Muster, email: str, address: str) -> tuple[int, int]:
    forgot = muster.client.post(
        "/api/auth/forgot-password", json={"email": email}, headers={"X-Forwarded-For": address}
    )
    return guess(muster, email, address=address).status_code, forgot.status_code


def test_an_ipv6_customer_has_one_count_for_all_their_networks(strict: Muster) -> None:
    email = strict.new_account().email
    addresses = ["2001:db8:7:1::1", "2001:db8:7:2::1", "2001:db8:7:ff00::1", "2001:db8:7:ff01::1", "2001:db8:8::1"]
    assert [guess(strict, email, address=address).status_code for address in addresses] == [400, 400, 400, 429, 400]


def test_right_passwords_do_not_count_toward_the_ceiling(strict: Muster) -> None:
    account = strict.new_account()
    for _ in range(CEILING + 1):
        account.sign_in()

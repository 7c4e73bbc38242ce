"""Refresh tokens under real concurrency: what races ends well, and a killed service half does nothing (R1, R8, R11)."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from tests.servers import PASSWORD, Account, Muster, Tokens, claims_of, wait_for
from tests.session_tools import (
    BEYOND_GRACE,
    GRACE,
    assert_lives,
    assert_signed_out,
    at_once,
    is_refused,
    make_older,
    more_devices,
    refreshed,
    row_of,
)

REUSE_MAIL = "A device was signed out"


@pytest.fixture
def ada(muster: Muster) -> Account:
    return muster.register()


# ---- Many presentations of one token: R1 ----


def test_twenty_refreshes_of_one_token_at_once_all_get_its_one_successor(muster: Muster, ada: Account) -> None:
    phone = ada.sign_in()
    for generation in range(2, 12):
        phone = same_answer(at_once(*[partial(muster.refresh, phone.refresh)] * 20))
        assert row_of(muster, phone).generation == generation
    assert_lives(muster, phone)


def test_twenty_late_retries_at_once_all_get_one_new_successor(muster: Muster, ada: Account) -> None:
    phone = ada.sign_in()
    lost = refreshed(muster, phone)
    for generation in range(3, 8):
        make_older(muster, phone, BEYOND_GRACE)
        newest = same_answer(at_once(*[partial(muster.refresh, phone.refresh)] * 20))
        assert newest.refresh != lost.refresh
        assert (row_of(muster, phone).parent_generation, row_of(muster, phone).generation) == (1, generation)
        lost = newest
    assert_lives(muster, lost)


def same_answer(answers: list[httpx.Response]) -> Tokens:
    """The pair that all of them got."""
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    return Tokens(answers[-1].json())


def test_twenty_uses_of_a_used_up_token_at_once_are_one_theft(muster: Muster, ada: Account) -> None:
    phone = ada.sign_in()
    second = refreshed(muster, phone)
    newest = refreshed(muster, second)
    assert all(map(is_refused, at_once(*[partial(muster.refresh, phone.refresh)] * 20)))
    assert_signed_out(muster, phone, second, newest)
    # Mails leave in order: once this one is there, a second one about the theft would be there too.
    muster.client.post("/api/auth/forgot-password", json={"email": ada.email})
    muster.mails(ada.email, subject="Reset your password")
    assert len(muster.mails(ada.email, subject=REUSE_MAIL)) == 1


def test_a_retry_that_waited_for_the_database_is_judged_by_its_arrival(muster: Muster, ada: Account) -> None:
    phone = ada.sign_in()
    successor = refreshed(muster, phone)
    assert muster.me(successor).status_code == 200
    make_older(muster, phone, GRACE - timedelta(seconds=2))
    ends = datetime.fromisoformat(str(row_of(muster, phone).rotated_at)).replace(tzinfo=UTC) + GRACE
    with ThreadPoolExecutor(1) as pool:
        with sessions_locked(muster):
            waiting = pool.submit(muster.refresh, phone.refresh)
            wait_for(lambda: datetime.now(UTC) > ends, what="the end of the grace")
        assert waiting.result().json()["refresh_token"] == successor.refresh


@contextmanager
def sessions_locked(muster: Muster) -> Iterator[None]:
    """Nobody else can refresh."""
    url = muster.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    lock = "BEGIN IMMEDIATE" if url.startswith("sqlite") else "LOCK TABLE refresh_token IN ACCESS EXCLUSIVE MODE"
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text(lock))
        yield
    engine.dispose()


# ---- Refresh against whatever ends or confirms a session: R8 ----


def test_a_refresh_that_races_a_revocation_leaves_nothing_alive(muster: Muster, ada: Account) -> None:
    first = ada.sign_in()
    for _ in range(10):
        devices = more_devices(muster, first, 20)
        revocations = [partial(revoke, muster, device) for device in devices]
        refreshes = [partial(refresh_until_refused, muster, device) for device in devices]
        handed_out = at_once(*refreshes, *revocations)
        assert_signed_out(muster, *chain(*handed_out))
    assert_lives(muster, first)


def revoke(muster: Muster, tokens: Tokens) -> list[Tokens]:
    answer = muster.client.post("/api/auth/revoke", data={"token": tokens.refresh})
    assert answer.status_code == 200
    return []


def refresh_until_refused(muster: Muster, tokens: Tokens) -> list[Tokens]:
    """Refresh again and again until the session has ended; all pairs that were handed out."""
    pairs = [tokens]
    for _ in range(1000):
        answer = muster.refresh(pairs[-1].refresh)
        if answer.status_code != 200:
            assert is_refused(answer), answer.text
            return pairs
        pairs.append(Tokens(answer.json()))
    raise AssertionError("the session did not end")


def test_a_refresh_that_races_a_password_change_leaves_nothing_alive(muster: Muster, ada: Account) -> None:
    tablet = ada.sign_in()
    for _ in range(10):
        devices = more_devices(muster, tablet, 20)
        change = partial(change_password, muster, ada, tablet)
        changed, *handed_out = at_once(change, *[partial(refresh_until_refused, muster, device) for device in devices])
        assert_signed_out(muster, tablet, *chain(*handed_out))
        tablet = assert_lives(muster, *changed)


def change_password(muster: Muster, account: Account, tokens: Tokens) -> list[Tokens]:
    """The pair that the change answers with."""
    old, account.password = account.password, f"{PASSWORD}-{random.random()}"  # noqa: S311  # no secret
    body = {"current_password": old, "new_password": account.password}
    answer = muster.client.put("/api/users/me/password", json=body, headers=tokens.bearer)
    assert answer.status_code == 200, answer.text
    return [Tokens(answer.json())]

"""Refresh tokens and codes under real concurrency, and when the service is killed (R1, R8, R11, P4)."""

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from time import sleep
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from tests.support.concurrency import at_once
from tests.support.oauth_clients import App
from tests.support.servers import PASSWORD, Account, Muster, Tokens, claims_of, wait_for
from tests.support.sessions import (
    BEYOND_GRACE,
    GRACE,
    USES,
    Use,
    assert_lives,
    assert_signed_out,
    is_refused,
    make_older,
    more_devices,
    refreshed,
    row_of,
    session_id,
    thefts_mailed,
)

pytestmark = pytest.mark.slow

KILLS = 20  # at most, until one of them loses a response: nearly every one does


@pytest.fixture
def ada(muster: Muster) -> Account:
    return muster.new_account()


def rounds(muster: Muster, number: int, *, on_sqlite: int = 1) -> range:
    """`number` rounds on PostgreSQL: where a session may end, enough for 200 races in all. SQLite carries out one
    transaction that writes after the other, so one round finds any that did not begin as one that writes."""
    return range(on_sqlite if muster.on_sqlite else number)


# ---- Many presentations of one token: R1 ----


def test_twenty_refreshes_of_one_token_at_once_all_get_its_one_successor(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    for number in rounds(muster, 6):
        phone = same_answer(at_once(*[partial(muster.refresh, phone.refresh)] * 20))
        assert row_of(muster, phone).generation == number + 2
    assert_lives(muster, phone)


def test_twenty_late_retries_at_once_all_get_one_new_successor(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    lost = refreshed(muster, phone)
    for number in rounds(muster, 3):
        make_older(muster, phone, age=BEYOND_GRACE)
        newest = same_answer(at_once(*[partial(muster.refresh, phone.refresh)] * 20))
        assert newest.refresh != lost.refresh
        assert (row_of(muster, phone).parent_generation, row_of(muster, phone).generation) == (1, number + 3)
        lost = newest
    assert_lives(muster, lost)


def same_answer(answers: list[httpx.Response]) -> Tokens:
    """The token pair that is in all of these responses."""
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    return Tokens(answers[-1].json())


def test_twenty_uses_of_a_used_up_token_at_once_are_one_theft(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    second = refreshed(muster, phone)
    newest = refreshed(muster, second)
    assert all(map(is_refused, at_once(*[partial(muster.refresh, phone.refresh)] * 20)))
    assert_signed_out(muster, phone, second, newest)
    assert thefts_mailed(muster, ada) == 1


def test_a_retry_that_waited_for_the_database_is_judged_by_its_arrival(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    successor = refreshed(muster, phone)
    assert muster.me(successor).status_code == 200
    make_older(muster, phone, age=GRACE - timedelta(seconds=3))
    ends = datetime.fromisoformat(str(row_of(muster, phone).rotated_at)).replace(tzinfo=UTC) + GRACE
    with ThreadPoolExecutor(1) as pool:
        with sessions_locked(muster):
            waiting = pool.submit(muster.refresh, phone.refresh)
            wait_for(lambda: datetime.now(UTC) > ends, what="the end of the grace")
        assert waiting.result().json()["refresh_token"] == successor.refresh


@contextmanager
def sessions_locked(muster: Muster) -> Iterator[None]:
    """A block in which the service's requests for sessions wait."""
    on_sqlite = muster.on_sqlite
    with muster.engine.begin() as connection:
        connection.execute(text("BEGIN IMMEDIATE" if on_sqlite else "LOCK TABLE refresh_token"))
        yield


# ---- Codes: P4 ----


def test_two_exchanges_of_one_code_at_once_make_one_session(muster: Muster, ada: Account) -> None:
    app = App(muster)
    for _ in range(10):
        codes = app.codes(ada, 20)
        answers = at_once(*[partial(app.exchange, code) for code in codes for _ in range(2)])
        pairs = [same_answer(list(both)) for both in zip(answers[::2], answers[1::2], strict=True)]
        assert [claims_of(pair.access)["gen"] for pair in pairs] == [1] * 20
        assert len({claims_of(pair.access)["sid"] for pair in pairs}) == 20
    assert_lives(muster, pairs[-1])


def test_a_service_killed_while_it_redeems_codes_redeems_them_again(serve: Callable[..., Muster]) -> None:
    muster = serve()
    ada, app, lost = muster.new_account(), App(muster), 0
    for _ in range(KILLS):
        codes = app.codes(ada, 24)
        answered = kill_while_redeeming(muster, app, codes)
        changed = {UUID(str(row.id)) for row in muster.sql("SELECT id FROM refresh_token WHERE generation = 1")}
        muster.start()
        for code in codes:
            again = app.exchange(code)
            assert again.status_code == 200, again.text
            if code in answered:
                assert again.json()["refresh_token"] == answered[code].refresh
            else:
                lost += session_id(Tokens(again.json())) in changed
            assert_lives(muster, Tokens(again.json()))
        if lost:
            return
    raise AssertionError(f"{KILLS} kills lost no response")


def kill_while_redeeming(muster: Muster, app: App, codes: list[str]) -> dict[str, Tokens]:
    """Kill the service while codes are redeemed; return the pairs that arrived before."""
    answered: dict[str, Tokens] = {}
    before = generations(muster)

    def redeem(some: list[str]) -> None:
        with suppress(httpx.TransportError):
            for code in some:
                answered[code] = Tokens(app.exchange(code).json())

    with ThreadPoolExecutor(4) as pool:
        redeeming = [pool.submit(redeem, codes[first::4]) for first in range(4)]
        wait_for(lambda: len(answered) > 4, what="exchanges")
        kill_at_a_change(muster, redeeming, lambda: before + len(answered))
    return answered


def generations(muster: Muster) -> int:
    """The number of changes of rows so far: each adds one to a generation."""
    return int(muster.sql("SELECT sum(generation) AS sum FROM refresh_token")[0].sum or 0)


def kill_at_a_change(muster: Muster, running: Sequence[Future[Any]], answered: Callable[[], int]) -> None:
    """Kill the service when a row has changed and the response to that was not sent yet, or when all calls have ended.

    It is stopped again and again to look: what it has sent by then arrives while it is stopped.
    """
    assert muster.process is not None
    while not all(one.done() for one in running):
        os.kill(muster.process.pid, signal.SIGSTOP)
        sleep(0.02)
        if generations(muster) > answered():
            break
        os.kill(muster.process.pid, signal.SIGCONT)
        sleep(random.random() / 200)  # noqa: S311  # no secret
    muster.kill()


# ---- Refresh against whatever ends or confirms a session: R8 ----


def test_a_refresh_that_races_a_revocation_leaves_nothing_alive(muster: Muster, ada: Account) -> None:
    first = ada.tokens()
    for _ in rounds(muster, 10):
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
    """Refresh again and again until the session has ended; the pairs that were handed out last, and its first one."""
    pairs = [tokens]
    for _ in range(1000):
        answer = muster.refresh(pairs[-1].refresh)
        if answer.status_code != 200:
            assert is_refused(answer), answer.text
            return pairs if len(pairs) < 3 else [pairs[0], *pairs[-2:]]
        pairs.append(Tokens(answer.json()))
    raise AssertionError("the session did not end")


def test_a_refresh_that_races_a_password_change_leaves_nothing_alive(muster: Muster, ada: Account) -> None:
    tablet = ada.tokens()
    for _ in rounds(muster, 10):
        devices = more_devices(muster, tablet, 20)
        change = partial(change_password, muster, ada, tablet)
        changed, *handed_out = at_once(change, *[partial(refresh_until_refused, muster, device) for device in devices])
        assert_signed_out(muster, tablet, *chain(*handed_out))
        tablet = assert_lives(muster, *changed)


def change_password(muster: Muster, account: Account, tokens: Tokens) -> list[Tokens]:
    """The pair in the response to the change."""
    old, account.password = account.password, f"{PASSWORD}-{random.random()}"  # noqa: S311  # no secret
    body = {"current_password": old, "new_password": account.password}
    answer = muster.client.put("/api/users/me/password", json=body, headers=tokens.bearer)
    assert answer.status_code == 200, answer.text
    return [Tokens(answer.json())]


def test_a_login_that_races_a_password_change_leaves_nothing_alive(muster: Muster) -> None:
    for _ in rounds(muster, 29, on_sqlite=8):  # where a session is given the epoch of the moment, one in two shows it
        ada = muster.new_account()  # the ceiling of sign-ins to one account is a hundred an hour
        tablet = ada.tokens()
        old = {"grant_type": "password", "username": ada.email, "password": ada.password}
        with ThreadPoolExecutor() as pool:
            change = pool.submit(change_password, muster, ada, tablet)
            # One hash at a time, in order: once this one is answered, the change is about to hash the new password,
            # and most of the sign-ins that come now have read the old one and are decided when it is gone.
            muster.token(**old)
            answers = at_once(*[partial(muster.token, **old)] * 7)  # with the change one network's share
        handed_out = [Tokens(answer.json()) for answer in answers if answer.status_code == 200]
        assert len(handed_out) + sum(map(is_refused, answers)) == len(answers)
        assert_signed_out(muster, tablet, *handed_out)
        assert_lives(muster, *change.result())


def test_a_refresh_that_races_the_first_uses_of_its_pair_is_not_confirmed_by_them(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    # Without the comparison in compare_and_swap, one of the first two shows it.
    for _ in rounds(muster, 200, on_sqlite=20):
        read = partial(muster.me, phone)
        write = partial(muster.client.patch, "/api/users/me", json={}, headers=phone.bearer)
        answers = at_once(partial(muster.refresh, phone.refresh), read, write)
        assert [answer.status_code for answer in answers] == [200] * 3
        phone = Tokens(answers[0].json())
        assert not row_of(muster, phone).confirmed
    assert_lives(muster, phone)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_late_retry_and_the_use_of_the_response_it_replaces_never_both_continue(
    muster: Muster, ada: Account, use: Use
) -> None:
    first = ada.tokens()
    for _ in range(2):  # without that comparison, half of these pairs show it
        parents = more_devices(muster, first, 6)
        lost = [refreshed(muster, parent) for parent in parents]
        make_older(muster, *parents, age=BEYOND_GRACE)
        retries = [partial(muster.refresh, parent.refresh) for parent in parents]
        answers = at_once(*retries, *[partial(use, muster, pair) for pair in lost])
        for retry, used in zip(answers[:6], answers[6:], strict=True):
            assert min([retry.status_code, used.status_code]) == 200
            assert is_refused(retry) or is_refused(used)
        handed_out = [Tokens(answer.json()) for answer in answers if "refresh_token" in answer.json()]
        assert_signed_out(muster, *parents, *lost, *handed_out)
    assert_lives(muster, first)


# ---- A service that is killed: R11 ----


def test_a_service_killed_at_any_moment_leaves_whole_rows_and_every_retry_works(serve: Callable[..., Muster]) -> None:
    muster = serve()
    phones = more_devices(muster, muster.new_account().tokens(), 6)
    lost = 0
    for kills in range(1, KILLS + 1):
        phones = kill_while_refreshing(muster, phones)
        muster.start()
        lost += sum(answer_was_lost(muster, phone) for phone in phones)
        phones = [assert_lives(muster, refreshed(muster, phone)) for phone in phones]
        if kills >= 3 and lost:
            return
    raise AssertionError(f"{KILLS} kills lost no response")


def kill_while_refreshing(muster: Muster, phones: list[Tokens]) -> list[Tokens]:
    """Kill the service while phones refresh; return the tokens that each phone had stored last."""
    answered: list[Tokens] = []
    before = generations(muster)

    def go_on(tokens: Tokens) -> Tokens:
        while True:
            try:
                tokens = refreshed(muster, tokens)
                answered.append(tokens)
                assert muster.me(tokens).status_code == 200
            except httpx.TransportError:
                return tokens

    with ThreadPoolExecutor(len(phones)) as pool:
        stored = [pool.submit(go_on, phone) for phone in phones]
        try:
            wait_for(lambda: len(answered) > len(phones), what="refreshes")
            kill_at_a_change(muster, stored, lambda: before + len(answered))
        finally:
            if muster.process is not None:  # the phones go on until the service ends
                muster.kill()
        return [phone.result() for phone in stored]


def answer_was_lost(muster: Muster, phone: Tokens) -> bool:
    """Whether the service changed the row and its response never came; the row is whole either way."""
    row, held = row_of(muster, phone), claims_of(phone.access)["gen"]
    rotated_at, idle_expires_at = (datetime.fromisoformat(str(at)) for at in (row.rotated_at, row.idle_expires_at))
    assert row.generation in {held, held + 1}
    assert row.parent_generation == row.generation - 1
    assert row.rotated_at == row.last_used_at
    assert idle_expires_at - rotated_at == timedelta(days=30)
    assert row.revoked_at is None
    return bool(row.generation > held)

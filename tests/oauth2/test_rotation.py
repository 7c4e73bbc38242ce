"""Refresh tokens, one request after the other: lost responses, theft, time limits (rows R2 to R7 and R9)."""

from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from tests.support.servers import Account, Muster, Tokens, claims_of, text_of
from tests.support.sessions import (
    BEYOND_GRACE,
    USES,
    WITHIN_GRACE,
    Use,
    assert_lives,
    assert_signed_out,
    is_refused,
    make_older,
    refreshed,
    row_of,
    session_id,
    sign_access,
    thefts_mailed,
)

DAY = timedelta(days=1)
IDLE, ABSOLUTE = 30 * DAY, 180 * DAY  # the defaults
REUSE_MAIL = "A device was signed out"


@pytest.fixture
def ada(muster: Muster) -> Account:
    return muster.new_account()


def assert_theft(muster: Muster, use: Callable[[], httpx.Response], *handed_out: Tokens, other: Tokens) -> None:
    """This use is refused and ends the session of these tokens; the other device lives."""
    assert is_refused(use())
    assert_signed_out(muster, *handed_out)
    assert row_of(muster, handed_out[0]).revoke_reason == "reuse"
    assert_lives(muster, other)


# ---- Lost responses: R2, R3 ----


def test_a_retry_within_seconds_gets_the_same_successor(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    lost = refreshed(muster, phone)
    make_older(muster, phone, age=timedelta(seconds=5))
    again = refreshed(muster, phone)
    assert again.refresh == lost.refresh
    assert_lives(muster, again)


@pytest.mark.parametrize("delay", [timedelta(minutes=5), 5 * DAY], ids=str)
def test_a_late_retry_gets_a_new_successor_and_no_longer_life(muster: Muster, ada: Account, delay: timedelta) -> None:
    phone = ada.tokens()
    lost = refreshed(muster, phone)
    make_older(muster, phone, age=delay)
    before = row_of(muster, phone)
    again = refreshed(muster, phone)
    after = row_of(muster, phone)
    assert again.refresh != lost.refresh
    assert (after.generation, after.parent_generation) == (before.generation + 1, before.parent_generation)
    assert after.idle_expires_at == before.idle_expires_at
    assert_lives(muster, again)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("which", [0, 1], ids=["the first", "the last"])
def test_using_a_replaced_pair_revokes_the_session(muster: Muster, ada: Account, which: int, use: Use) -> None:
    phone, tablet = ada.tokens(), ada.tokens()
    lost = []
    for delay in (timedelta(minutes=5), 5 * DAY):
        lost.append(refreshed(muster, phone))
        make_older(muster, phone, age=delay)
    newest = refreshed(muster, phone)
    assert_theft(muster, lambda: use(muster, lost[which]), phone, *lost, newest, other=tablet)


def test_responses_may_be_lost_any_number_of_times(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    for _ in range(5):
        refreshed(muster, phone)
        make_older(muster, phone, age=5 * DAY)
    assert_lives(muster, refreshed(muster, phone))


# ---- Theft: R4 to R7 ----


def test_using_a_parent_after_its_successor_is_accepted_for_a_moment_and_then_is_theft(
    muster: Muster, ada: Account
) -> None:
    phone, tablet = ada.tokens(), ada.tokens()
    successor = refreshed(muster, phone)
    assert muster.me(successor).status_code == 200
    make_older(muster, phone, age=WITHIN_GRACE)
    again = refreshed(muster, phone)
    assert again.refresh == successor.refresh
    make_older(muster, phone, age=BEYOND_GRACE - WITHIN_GRACE)
    assert_theft(muster, lambda: muster.refresh(phone.refresh), phone, successor, again, other=tablet)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/users/me", 200),
        ("GET", "/api/users", 403),
        ("PATCH", "/api/users/me", 422),
        ("PUT", "/api/users/me/password", 403),
        ("DELETE", "/api/users/me/sessions/00000000-0000-7000-8000-000000000000", 404),
    ],
)
def test_a_use_counts_whatever_the_response_is(
    muster: Muster, ada: Account, method: str, path: str, status: int
) -> None:
    successor = refreshed(muster, ada.tokens())
    body = {"current_password": "not the password", "new_password": "x"} if method in {"PUT", "PATCH"} else None
    answer = muster.client.request(method, path, headers=successor.bearer, json=body)
    assert answer.status_code == status
    assert row_of(muster, successor).confirmed


def test_using_the_grandparent_revokes_the_session(muster: Muster, ada: Account) -> None:
    phone, tablet = ada.tokens(), ada.tokens()
    pairs = [phone, second := refreshed(muster, phone), refreshed(muster, second)]
    assert_theft(muster, lambda: muster.refresh(phone.refresh), *pairs, other=tablet)


def test_rotations_within_a_second_keep_their_order(muster: Muster, ada: Account) -> None:
    phone, tablet = ada.tokens(), ada.tokens()
    pairs = [phone]
    for _ in range(10):
        pairs.append(refreshed(muster, pairs[-1]))
    assert [claims_of(pair.access)["gen"] for pair in pairs] == list(range(1, 12))
    assert refreshed(muster, pairs[-2]).refresh == pairs[-1].refresh
    assert_theft(muster, lambda: muster.refresh(pairs[-3].refresh), *pairs, other=tablet)


def test_after_a_theft_nothing_brings_the_session_back_and_one_mail_reports_it(serve: Callable[..., Muster]) -> None:
    muster = serve()
    ada = muster.register()
    ada.confirm()  # a mail to an address that may be a stranger's says only "a device"
    phone = ada.sign_in(device="Ada's phone")
    pairs = [phone, second := refreshed(muster, phone), refreshed(muster, second)]
    assert is_refused(muster.refresh(phone.refresh))
    assert "Ada's phone" in text_of(muster.mails(ada.email, subject=REUSE_MAIL)[0])

    with muster.another_client() as stranger:
        form = {"grant_type": "refresh_token", "refresh_token": pairs[-1].refresh}
        assert is_refused(stranger.post("/api/auth/token", data=form))
    assert_signed_out(muster, *pairs)
    muster.stop()
    muster.start()
    assert_signed_out(muster, *pairs)

    assert thefts_mailed(muster, ada) == 1
    reuses = [line for line in muster.log.splitlines() if "token-reused" in line]
    assert sum(str(session_id(phone)) in line for line in reuses) == 1


# ---- The generation that an access token was made for ----


def test_access_tokens_of_the_parent_and_older_ones_work_and_confirm_nothing(muster: Muster, ada: Account) -> None:
    pairs = [ada.tokens()]
    for _ in range(3):
        pairs.append(refreshed(muster, pairs[-1]))
    assert [muster.me(pair).status_code for pair in pairs[:-1]] == [200, 200, 200]
    assert not row_of(muster, pairs[0]).confirmed
    assert muster.me(pairs[-1]).status_code == 200
    assert row_of(muster, pairs[0]).confirmed


def test_an_access_token_ahead_of_the_row_works_and_confirms_nothing(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    lost = refreshed(muster, phone)
    for generation in (3, 2**31):
        assert muster.me(Tokens(access_token=sign_access(phone, generation))).status_code == 200
    assert not row_of(muster, phone).confirmed
    make_older(muster, phone, age=BEYOND_GRACE)
    assert refreshed(muster, phone).refresh != lost.refresh


# ---- Time: R9 ----


def test_a_session_ends_when_it_was_not_refreshed_for_the_idle_time(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    make_older(muster, phone, age=IDLE - timedelta(minutes=1))
    phone = assert_lives(muster, phone)
    make_older(muster, phone, age=IDLE - timedelta(minutes=1))
    phone = assert_lives(muster, phone)
    make_older(muster, phone, age=IDLE)
    assert_signed_out(muster, phone)


def test_refreshing_often_does_not_outlive_the_absolute_limit(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    for _ in range(11):
        make_older(muster, phone, age=16 * DAY)
        phone = assert_lives(muster, phone)
    make_older(muster, phone, age=4 * DAY - timedelta(minutes=5))
    phone = assert_lives(muster, phone)
    assert 0 < phone["expires_in"] <= 300
    assert row_of(muster, phone).idle_expires_at == row_of(muster, phone).absolute_expires_at
    make_older(muster, phone, age=timedelta(minutes=5))
    assert_signed_out(muster, phone)


def test_lost_responses_do_not_extend_the_idle_time(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    lost = [refreshed(muster, phone)]
    for _ in range(5):
        make_older(muster, phone, age=5 * DAY)
        lost.append(refreshed(muster, phone))
    make_older(muster, phone, age=5 * DAY)
    assert_signed_out(muster, phone, *lost)


def test_reuse_in_a_session_that_has_ended_reports_no_theft(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    refreshed(muster, refreshed(muster, phone))
    make_older(muster, phone, age=IDLE)
    assert_signed_out(muster, phone)
    assert row_of(muster, phone).revoked_at is None

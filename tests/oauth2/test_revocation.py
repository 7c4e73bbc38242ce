"""Revocation (RFC 7009): any token of a session ends it at once, and no response says whether it was valid."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import uuid4

import httpx
import pytest

from tests.support.servers import Muster, Tokens
from tests.support.sessions import expired

REVOKE = "/api/auth/revoke"
HINTS = [None, "access_token", "refresh_token", "something_else", ""]


def revoke(muster: Muster, token: str, hint: str | None = None) -> httpx.Response:
    return muster.client.post(REVOKE, data={"token": token, **({} if hint is None else {"token_type_hint": hint})})


def assert_accepted(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.content) == (200, b"")
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")


def is_signed_in(muster: Muster, tokens: Tokens) -> bool:
    """Whether both the access token and the refresh token work; asking uses the latter up."""
    used, refreshed = muster.me(tokens), muster.refresh(tokens.refresh)
    assert {used.status_code, refreshed.status_code} in ({200}, {401, 400})
    return used.status_code == 200


def rotated(muster: Muster, tokens: Tokens) -> Tokens:
    """The next pair, its access token used: the rotation is complete."""
    following = Tokens(muster.refresh(tokens.refresh).json())
    assert muster.me(following).status_code == 200
    return following


def flipped(token: str) -> str:
    """A refresh token with one bit of its MAC turned."""
    raw = bytearray(urlsafe_b64decode(token))
    raw[-1] ^= 1
    return urlsafe_b64encode(raw).decode()


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_revoking_either_token_ends_that_session_at_once_and_no_other(
    muster: Muster, which: str, hint: str | None
) -> None:
    account = muster.new_account()
    phone, tablet = account.tokens(), account.tokens()
    assert_accepted(revoke(muster, phone[which], hint))
    assert not is_signed_in(muster, phone)
    assert is_signed_in(muster, tablet)


@pytest.mark.parametrize("generations", [1, 2, 3])
def test_any_earlier_refresh_token_ends_the_session_too(muster: Muster, generations: int) -> None:
    first = newest = muster.new_account().tokens()
    for _ in range(generations):
        newest = rotated(muster, newest)
    assert_accepted(revoke(muster, first.refresh))
    assert not is_signed_in(muster, newest)


@pytest.mark.parametrize("is_expired", [False, True])
def test_an_earlier_access_token_ends_the_session_too(muster: Muster, *, is_expired: bool) -> None:
    first = muster.new_account().tokens()
    newest = rotated(muster, first)
    assert_accepted(revoke(muster, expired(first) if is_expired else first.access))
    assert not is_signed_in(muster, newest)


@pytest.mark.parametrize("hint", HINTS)
def test_revoking_an_unknown_token_is_answered_like_any_other(muster: Muster, hint: str | None) -> None:
    account = muster.new_account()
    tokens, gone = account.tokens(), account.tokens()
    muster.client.post("/api/auth/forgot-password", json={"email": account.email})
    assert_accepted(revoke(muster, gone.refresh, hint))
    nothing = [gone.refresh, gone.access, "nonsense", "x" * 5_000, "a.b.c", "ü", flipped(tokens.refresh)]
    nothing += [tokens.access[:-10] + "AAAAAAAAAA", muster.link_token(account.email, subject="Reset")]
    for token in nothing:
        assert_accepted(revoke(muster, token, hint))
    assert is_signed_in(muster, tokens)


@pytest.mark.parametrize(
    "time_passes",
    [
        "UPDATE refresh_token SET idle_expires_at = created_at WHERE device = :device",
        "UPDATE refresh_token SET absolute_expires_at = created_at WHERE device = :device",
    ],
    ids=["idle", "absolute"],
)
def test_a_session_past_its_time_can_still_be_revoked(muster: Muster, time_passes: str) -> None:
    device = uuid4().hex
    tokens = muster.new_account().sign_in(device=device)
    muster.sql(time_passes, device=device)
    assert_accepted(revoke(muster, tokens.refresh))
    row = muster.sql("SELECT revoked_at, revoke_reason FROM refresh_token WHERE device = :device", device=device)[0]
    assert row.revoked_at is not None
    assert row.revoke_reason == "signed-out"


@pytest.mark.parametrize("body", ["", "token=", "token_type_hint=access_token", "token=a&token=b", "token=%00"])
def test_a_missing_repeated_or_malformed_token_is_invalid_request(muster: Muster, body: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = muster.client.post(REVOKE, content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert answer.headers["cache-control"] == "no-store"


def test_a_token_in_the_url_or_in_json_is_refused_and_ends_nothing(muster: Muster) -> None:
    tokens = muster.new_account().tokens()
    token = {"token": tokens.refresh}
    for answer in (muster.client.post(REVOKE, params=token), muster.client.post(REVOKE, json=token)):
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert is_signed_in(muster, tokens)

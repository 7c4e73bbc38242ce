"""Revocation (RFC 7009): any token of a session ends it at once, and nobody learns whether it was one."""

import dataclasses
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.security import AccessTokenSigner
from tests.servers import SECRET_KEY, Muster, Tokens

REVOKE = "/api/auth/revoke"
HINTS = [None, "access_token", "refresh_token", "something_else", ""]


def revoke(muster: Muster, token: str, hint: str | None = None) -> httpx.Response:
    return muster.client.post(REVOKE, data={"token": token, **({} if hint is None else {"token_type_hint": hint})})


def assert_accepted(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.content) == (200, b"")
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")


def is_signed_in(muster: Muster, tokens: Tokens) -> bool:
    """By the access token and the refresh token alike; the latter is used up by asking."""
    used, refreshed = muster.me(tokens), muster.refresh(tokens.refresh)
    assert {used.status_code, refreshed.status_code} in ({200}, {401, 400})
    return used.status_code == 200


def rotated(muster: Muster, tokens: Tokens) -> Tokens:
    """The next pair, its access token used: the rotation is complete."""
    following = Tokens(muster.refresh(tokens.refresh).json())
    assert muster.me(following).status_code == 200
    return following


def expired(muster: Muster, tokens: Tokens) -> str:
    """The same access token as if it had been made a year ago."""
    signer = AccessTokenSigner([SECRET_KEY], f"http://localhost:{muster.port}")
    year = timedelta(days=365)
    claims = signer.verify(tokens.access, datetime.now(UTC))
    times = {name: getattr(claims, name) - int(year.total_seconds()) for name in ("issued_at", "not_before", "expires_at")}
    return signer.mint(dataclasses.replace(claims, **times))


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
    account = muster.register()
    phone, tablet = account.sign_in(), account.sign_in()
    assert_accepted(revoke(muster, phone[which], hint))
    assert not is_signed_in(muster, phone)
    assert is_signed_in(muster, tablet)


@pytest.mark.parametrize("generations", [1, 2, 3])
def test_any_earlier_refresh_token_ends_the_session_too(muster: Muster, generations: int) -> None:
    first = newest = muster.register().sign_in()
    for _ in range(generations):
        newest = rotated(muster, newest)
    assert_accepted(revoke(muster, first.refresh))
    assert not is_signed_in(muster, newest)


def test_an_earlier_or_expired_access_token_ends_the_session_too(muster: Muster) -> None:
    for stale in (lambda tokens: tokens.access, lambda tokens: expired(muster, tokens)):
        first = muster.register().sign_in()
        token = stale(first)
        newest = rotated(muster, first)
        assert_accepted(revoke(muster, token))
        assert not is_signed_in(muster, newest)


@pytest.mark.parametrize("hint", HINTS)
def test_a_token_that_ends_nothing_is_answered_alike(muster: Muster, hint: str | None) -> None:
    account = muster.register()
    tokens, gone = account.sign_in(), account.sign_in()
    muster.client.post("/api/auth/forgot-password", json={"email": account.email})
    assert_accepted(revoke(muster, gone.refresh, hint))
    nothing = [gone.refresh, gone.access, "nonsense", "x" * 5_000, "a.b.c", "ü", flipped(tokens.refresh)]
    nothing += [tokens.access[:-10] + "AAAAAAAAAA", muster.link_token(account.email, subject="Reset")]
    for token in nothing:
        assert_accepted(revoke(muster, token, hint))
    assert is_signed_in(muster, tokens)


def test_the_first_reason_and_time_of_a_revocation_stay(muster: Muster) -> None:
    tokens = muster.register().sign_in()
    session = {"id": AccessTokenSigner([SECRET_KEY], f"http://localhost:{muster.port}").verify(tokens.access, None)}
    del session
    assert_accepted(revoke(muster, tokens.refresh))


@pytest.mark.parametrize("end", ["idle_expires_at", "absolute_expires_at"])
def test_a_session_past_its_time_can_still_be_revoked(muster: Muster, end: str) -> None:
    tokens = muster.register().sign_in()
    muster.sql(f"UPDATE refresh_token SET {end} = created_at")
    assert_accepted(revoke(muster, tokens.refresh))


@pytest.mark.parametrize("body", ["", "token=", "token_type_hint=access_token", "token=a&token=b", "token=%00"])
def test_a_missing_repeated_or_malformed_token_is_invalid_request(muster: Muster, body: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = muster.client.post(REVOKE, content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert answer.headers["cache-control"] == "no-store"


def test_a_token_in_the_url_or_in_json_is_refused_and_ends_nothing(muster: Muster) -> None:
    tokens = muster.register().sign_in()
    for options in ({"params": {"token": tokens.refresh}}, {"json": {"token": tokens.refresh}}):
        assert muster.client.post(REVOKE, **options).json()["error"] == "invalid_request"
    assert is_signed_in(muster, tokens)

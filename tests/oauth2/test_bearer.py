"""Bearer use (RFC 6750) and the JWT behind it (RFC 8725, RFC 9068): what is accepted, and all that is refused."""

from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import pytest

from app.core.crypto import base64url, derive_keys
from app.core.errors import InvalidToken
from app.oauth2.access_tokens import AccessTokenSigner
from tests.support.bearer_tokens import (
    ABSENT,
    CHALLENGE,
    HEADER,
    INVALID_TOKEN,
    assert_challenged,
    forged,
    me_with,
    signed,
)
from tests.support.databases import SECRET_KEY
from tests.support.servers import Muster, claims_of
from tests.support.sessions import NOBODY

pytestmark = pytest.mark.one_database

OTHER_KEY = derive_keys(["another-secret-of-the-tests-0123456789-abcdef"], "access")[0]
DIGESTS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


# ---- The header ----


@pytest.mark.parametrize("authorization", ["", "Basic YTpi", "Token abc", "Digest x", "abc"])
def test_without_bearer_credentials_the_challenge_names_no_error(muster: Muster, authorization: str) -> None:
    answer = me_with(muster, authorization) if authorization else me_with(muster)
    assert_challenged(answer, CHALLENGE)
    assert answer.json()["type"] == "/problems/unauthenticated"


def test_a_token_in_the_url_or_the_body_is_not_a_credential(muster: Muster) -> None:
    tokens = muster.new_account().tokens()
    assert_challenged(muster.client.get("/api/users/me", params={"access_token": tokens.access}), CHALLENGE)
    body = muster.client.request("PATCH", "/api/users/me", data={"access_token": tokens.access})
    assert_challenged(body, CHALLENGE)


def test_one_bearer_token_is_accepted_and_anything_else_refused(muster: Muster) -> None:
    token = muster.new_account().tokens().access
    for good in (f"Bearer {token}", f"bearer {token}", f"BEARER   {token}"):
        assert me_with(muster, good).status_code == 200
    refused = ["Bearer", f"Bearer{token}", f"Bearer {token} {token}", f"Bearer {token}, Bearer {token}"]
    refused += [f"Bearer {token},", f'Bearer "{token}"', f"Bearer token={token}", f"Bearer {token}\u00e9"]
    for bad in refused:
        answer = muster.client.get("/api/users/me", headers=[(b"Authorization", bad.encode("latin-1"))])
        assert_challenged(answer, INVALID_TOKEN)
    assert_challenged(me_with(muster, f"Bearer {token}", f"Bearer {token}"), INVALID_TOKEN)
    assert_challenged(me_with(muster, f"Bearer {token}", "Basic YTpi"), INVALID_TOKEN)
    assert_challenged(me_with(muster, "Basic YTpi", f"Bearer {token}"), CHALLENGE)


def test_a_missing_scope_is_named(muster: Muster) -> None:
    tokens = muster.new_account().sign_in(scope="jobs")
    answer = muster.me(tokens)
    assert_challenged(answer, f'{CHALLENGE}, error="insufficient_scope", scope="me"', status=403)
    assert answer.json()["scope"] == "me"
    assert muster.client.get("/api/users", headers=tokens.bearer).json()["scope"] == "users:read"


# ---- The token ----


def test_a_token_made_by_these_tests_passes(muster: Muster) -> None:
    tokens = muster.new_account().tokens()
    for header in ({}, {"typ": "application/at+jwt"}):
        assert me_with(muster, f"Bearer {forged(tokens, header=header)}").status_code == 200


def test_a_revoked_token_is_refused(muster: Muster) -> None:
    tokens = muster.new_account().tokens()
    assert muster.client.post("/api/auth/revoke", data={"token": tokens.access}).status_code == 200
    assert_challenged(muster.me(tokens), INVALID_TOKEN)


@pytest.mark.slow
def test_a_token_with_any_other_last_character_is_refused(muster: Muster) -> None:
    token = muster.new_account().tokens().access
    for character in BASE64URL:
        status = me_with(muster, f"Bearer {token[:-1]}{character}").status_code
        assert status == (200 if character == token[-1] else 401), f"{character} for {token[-1]}"


NOT_OURS: dict[str, list[Any]] = {
    "alg": [ABSENT, None, "none", "None", "RS256", "HS512", ["HS256"]],
    "typ": [ABSENT, None, "JWT", "AT+JWT", "at+jwt ", ["at+jwt"]],
    "kid": [ABSENT, None, "0" * 16, "", [HEADER["kid"]]],
    "crit": [None, [], ["exp"], ["b64"]],
}


@pytest.mark.parametrize("member", NOT_OURS)
def test_a_header_with_foreign_members_is_rejected(muster: Muster, member: str) -> None:
    tokens = muster.new_account().tokens()
    for value in NOT_OURS[member]:
        answer = me_with(muster, f"Bearer {forged(tokens, header={member: value})}")
        assert answer.status_code == 401, value
        assert_challenged(answer, INVALID_TOKEN)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS384", "HS512"])
def test_a_token_without_our_own_signature_is_refused(muster: Muster, algorithm: str) -> None:
    tokens = muster.new_account().tokens()
    claims, header = claims_of(tokens.access), {**HEADER, "alg": algorithm}
    unsigned = signed(header, claims).rpartition(".")[0]
    candidates = [f"{unsigned}.", f"{unsigned}.AAAA", unsigned, signed(header, claims, key=OTHER_KEY)]
    if algorithm in {"HS384", "HS512"}:
        candidates.append(signed(header, claims, digest=DIGESTS[algorithm]))
    for token in candidates:
        assert_challenged(me_with(muster, f"Bearer {token}"), INVALID_TOKEN)


def test_keys_that_a_token_brings_along_are_ignored(muster: Muster) -> None:
    tokens = muster.new_account().tokens()
    brought = {
        "jku": "https://attacker.example/keys",
        "x5u": "https://attacker.example/certificate",
        "jwk": {"kty": "oct", "k": base64url(OTHER_KEY), "alg": "HS256"},
        "x5c": ["AAAA"],
    }
    assert me_with(muster, f"Bearer {forged(tokens, header=brought)}").status_code == 200
    assert_challenged(me_with(muster, f"Bearer {forged(tokens, header=brought, key=OTHER_KEY)}"), INVALID_TOKEN)


WRONG: dict[str, list[Any]] = {
    "iss": ["https://attacker.example", "", ["x"], 1],
    "aud": ["other", "", ["other"], None],
    "sub": ["nobody", "", 1, None, NOBODY],
    "sid": ["nothing", "", 1, None, NOBODY],
    "gen": ["1", None, True, 1.5],
    "client_id": [None, 1, ["app"]],
    "scope": [None, ["me"], 1, {}],
    "auth_time": ["now", None, 1.5, True],
    "iat": ["now", None, 1.5, False],
    "exp": ["never", None, 9e12, -1, float("nan"), float("inf"), True],
    "nbf": ["now", None, 1.5],
    "jti": [None, 1, {}],
}


@pytest.mark.both_databases
@pytest.mark.parametrize("claim", WRONG)
def test_each_claim_is_required_and_checked(muster: Muster, claim: str) -> None:
    tokens = muster.new_account().tokens()
    missing = [] if claim == "nbf" else [ABSENT]
    for value in [*missing, *WRONG[claim]]:
        answer = me_with(muster, f"Bearer {forged(tokens, **{claim: value})}")
        assert answer.status_code == 401, (claim, value)
        assert_challenged(answer, INVALID_TOKEN)


def test_the_subject_must_be_the_sessions_own_user(muster: Muster) -> None:
    ada, eve = muster.new_account().tokens(), muster.new_account().tokens()
    assert_challenged(me_with(muster, f"Bearer {forged(eve, sub=claims_of(ada.access)['sub'])}"), INVALID_TOKEN)
    assert_challenged(me_with(muster, f"Bearer {forged(eve, sid=claims_of(ada.access)['sid'])}"), INVALID_TOKEN)


@pytest.mark.parametrize("scope", ["", "users:read", "nonsense", "ME"])
def test_a_claim_gives_no_scope_that_the_session_lacks(muster: Muster, scope: str) -> None:
    tokens = muster.new_account().tokens()
    assert (
        muster.client.get("/api/users", headers={"Authorization": f"Bearer {forged(tokens, scope=scope)}"}).status_code
        == 403
    )
    assert me_with(muster, f"Bearer {forged(tokens, scope=scope)}").status_code == 403


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
def test_clocks_may_differ_by_a_minute(muster: Muster, claim: str) -> None:
    tokens = muster.new_account().tokens()
    direction = -1 if claim == "exp" else 1
    for seconds, status in ((30, 200), (100, 401)):
        times: dict[str, Any] = {claim: int(time()) + direction * seconds}
        assert me_with(muster, f"Bearer {forged(tokens, **times)}").status_code == status


@pytest.mark.parametrize(
    "token",
    [
        "abc",
        "a.b.c",
        "..",
        f"{base64url(b'[]')}.{base64url(b'{}')}.AAAA",
        f"{base64url(b'null')}.{base64url(b'{}')}.AAAA",
        signed([HEADER], {}),
        signed(HEADER, []),
        signed(HEADER, None),
        signed(HEADER, "text"),
        f"{base64url(b'{')}.{base64url(b'{')}.AAAA",
        f"{base64url(bytes([0xFF]))}.{base64url(bytes([0xFF]))}.AAAA",
        f"{base64url(b'[' * 2900)}.e30.AAAA",
        f"{signed(HEADER, {})}.a.b",
        "A" * 5_000,
        signed(HEADER, {"filler": "x" * 5_000}),
    ],
    ids=lambda token: token[:12],
)
def test_a_malformed_token_is_rejected(muster: Muster, token: str) -> None:
    assert_challenged(me_with(muster, f"Bearer {token}"), INVALID_TOKEN)


# ---- Time, to the second ----


def test_the_skew_ends_after_exactly_sixty_seconds_also_for_a_token_seen_before(muster: Muster) -> None:
    signer = AccessTokenSigner([SECRET_KEY], f"http://localhost:{muster.port}")
    tokens = muster.new_account().tokens()
    claims = signer.verify(tokens.access, None)
    expiry, start = datetime.fromtimestamp(claims.expires_at, UTC), datetime.fromtimestamp(claims.issued_at, UTC)
    minute, instant = timedelta(seconds=60), timedelta(microseconds=1)
    assert signer.verify(tokens.access, expiry + minute - instant) == claims
    assert signer.verify(tokens.access, start - minute) == claims
    for moment in (expiry + minute, start - minute - instant):
        with pytest.raises(InvalidToken):
            signer.verify(tokens.access, moment)

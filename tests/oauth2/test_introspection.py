"""Introspection (RFC 7662): a live token is described, all else is `{"active": false}`; asking uses nothing up."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.oauth2.access_tokens import AccessTokenSigner
from tests.support.assertions import assert_limited, assert_oauth_error
from tests.support.databases import SECRET_KEY
from tests.support.servers import Account, Muster, Tokens, claims_of
from tests.support.sessions import BEYOND_GRACE, expired, make_older, row_of

pytestmark = pytest.mark.one_database

INTROSPECT = "/api/auth/introspect"
SERVICE = "tokens:introspect"
INACTIVE = {"active": False}


@pytest.fixture(scope="module")
def service(muster: Muster) -> Tokens:
    return muster.admin().sign_in(scope=SERVICE)


@pytest.fixture
def ada(muster: Muster) -> Account:
    return muster.new_account()


def introspect(muster: Muster, service: Tokens | None, **form: str) -> httpx.Response:
    return muster.client.post(INTROSPECT, data=form, headers=service.bearer if service else {})


def introspected(muster: Muster, service: Tokens, token: str) -> dict[str, Any]:
    answer = introspect(muster, service, token=token)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    state: dict[str, Any] = answer.json()
    return state


def test_introspection_requires_its_scope(muster: Muster, service: Tokens, ada: Account) -> None:
    phone = ada.tokens()
    stranger = introspect(muster, None, token=phone.access)
    assert_oauth_error(stranger, 401, "invalid_token")
    assert stranger.headers["www-authenticate"] == 'Bearer realm="muster"'
    own = introspect(muster, phone, token=phone.access)
    assert_oauth_error(own, 403, "insufficient_scope")
    assert f'scope="{SERVICE}"' in own.headers["www-authenticate"]
    assert_oauth_error(introspect(muster, service), 400, "invalid_request")


def test_a_live_access_token_is_described(muster: Muster, service: Tokens, ada: Account) -> None:
    phone = ada.sign_in(scope="me jobs", client_id="ios")
    claims, answer = claims_of(phone.access), introspected(muster, service, phone.access)
    assert answer == {
        "active": True,
        "scope": "me jobs",
        "client_id": "ios",
        "token_type": "Bearer",
        **{name: claims[name] for name in ("exp", "iat", "sub", "aud", "iss", "jti", "sid")},
        "nbf": claims["iat"],
    }


def test_an_expired_token_is_inactive_to_the_second(muster: Muster, service: Tokens, ada: Account) -> None:
    """The minute of skew, within which it still opens things here, is for clocks that differ."""
    signer = AccessTokenSigner([SECRET_KEY], f"http://localhost:{muster.port}")
    claims = signer.verify(ada.tokens().access, None)
    over = signer.mint(claims.model_copy(update={"expires_at": int(datetime.now(UTC).timestamp()) - 5}))
    assert muster.me(Tokens(access_token=over)).status_code == 200
    assert introspected(muster, service, over) == INACTIVE


def test_a_token_that_is_not_live_is_only_reported_as_inactive(muster: Muster, service: Tokens, ada: Account) -> None:
    phone, tablet = ada.tokens(), ada.tokens()
    muster.client.post("/api/auth/revoke", data={"token": tablet.refresh})
    assert muster.client.post("/api/auth/forgot-password", json={"email": ada.email}).status_code == 202
    others = ["x", "a.b.c", "A" * 72, phone.access[:-2], phone.refresh[:-1], expired(phone)]
    others += [phone.refresh, tablet.access, tablet.refresh, muster.link_token(ada.email, subject="Reset")]
    for token in others:
        assert introspected(muster, service, token) == INACTIVE, token[:10]
    for hint in ("access_token", "refresh_token", "anything"):
        assert introspect(muster, service, token=phone.access, token_type_hint=hint).json()["active"]


def test_superseded_tokens_are_inactive_and_introspecting_them_revokes_nothing(
    muster: Muster, service: Tokens, ada: Account
) -> None:
    first = ada.tokens()
    lost = Tokens(muster.refresh(first.refresh).json())
    make_older(muster, first, age=BEYOND_GRACE)
    second = Tokens(muster.refresh(first.refresh).json())  # the response with `lost` never arrived: it is dead
    before = row_of(muster, second)
    for token in (lost.access, lost.refresh):
        assert introspected(muster, service, token) == INACTIVE
    assert introspected(muster, service, second.access)["active"]
    assert row_of(muster, second) == before, "nothing was confirmed, consumed or revoked"
    assert muster.me(second).status_code == 200


def test_scopes_are_those_in_force_now(muster: Muster, service: Tokens) -> None:
    boss, admin = muster.admin(), muster.admin().tokens()
    tokens = boss.tokens()
    assert "users:write" in introspected(muster, service, tokens.access)["scope"].split()
    user_id = claims_of(tokens.access)["sub"]
    change = {"role": "user"}
    assert muster.client.patch(f"/api/users/{user_id}", json=change, headers=admin.bearer).status_code == 200
    assert "users:write" not in introspected(muster, service, tokens.access)["scope"].split()
    assert muster.client.patch(f"/api/users/{user_id}", json={"is_active": False}, headers=admin.bearer).is_success
    assert introspected(muster, service, tokens.access) == INACTIVE


def test_introspection_has_a_higher_limit_than_other_routes(serve: Callable[..., Muster]) -> None:
    muster = serve(LIMIT_DEFAULT="3/minute", LIMIT_INTROSPECT="5/minute")
    service = muster.admin().tokens()
    for _ in range(5):
        assert introspected(muster, service, "x") == INACTIVE
    answer = introspect(muster, service, token="x")
    assert_limited(answer, "request", "q=5;w=60")
    for _ in range(3):
        assert introspect(muster, None, token="x").status_code == 401
    assert introspect(muster, None, token="x").status_code == 429, "refused ones count by LIMIT_DEFAULT"

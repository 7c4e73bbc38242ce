"""The tokens of a real identity provider, made by code that is not ours: what Muster makes of them."""

from collections.abc import Callable

import pytest

from tests.support.assertions import assert_problem
from tests.support.bearer_tokens import INVALID_TOKEN, assert_challenged
from tests.support.keycloak import use
from tests.support.oidc_provider import CLIENT, PHONE, STRANGER, OidcProvider
from tests.support.servers import Muster, Tokens, wait_for

pytestmark = pytest.mark.one_database

SCOPE = "openid email profile me tasks heroes:write"


def test_a_person_of_a_real_provider_from_sign_in_to_deletion(
    serve: Callable[..., Muster], provider: OidcProvider
) -> None:
    muster = serve(OIDC_ISSUER=provider.issuer, OIDC_CLIENT_ID=f"{CLIENT},{PHONE}")
    phone = provider.sign_in("grace", SCOPE)
    me = muster.me(phone).json()
    assert (me["email"], me["name"], me["role"], me["is_verified"]) == ("grace@provider.example", "grace", "user", True)
    assert muster.me(provider.sign_in("grace", SCOPE, client=CLIENT)).json() == me
    assert muster.me(provider.refresh(phone)).json() == me
    assert muster.me(provider.sign_in("unverified", SCOPE)).json()["is_verified"] is False
    task = muster.client.post("/api/tasks", json={"title": "Call"}, headers=phone.bearer)
    assert task.status_code == 201, task.text
    hero = muster.client.post("/api/heroes", json={"name": "Rust", "secret_name": "x"}, headers=phone.bearer)
    assert_problem(hero, 403, "insufficient-scope")  # the token has it, the role does not
    assert_problem(muster.client.get("/api/operations", headers=phone.bearer), 403, "insufficient-scope")
    assert muster.client.request("DELETE", "/api/users/me", json={}, headers=phone.bearer).status_code == 204


def test_other_tokens_of_a_real_provider_are_rejected(serve: Callable[..., Muster], provider: OidcProvider) -> None:
    muster = serve(OIDC_ISSUER=provider.issuer, OIDC_CLIENT_ID=f"{CLIENT},{PHONE}")
    for client in (PHONE, CLIENT):
        tokens = provider.sign_in("anna", SCOPE, client=client)
        for kind in ("id_token", "refresh_token"):
            assert_challenged(use(muster, tokens[kind]), INVALID_TOKEN)
        assert muster.me(tokens).status_code == 200
    assert_challenged(muster.me(provider.sign_in("anna", SCOPE, client=STRANGER)), INVALID_TOKEN)
    other = serve(OIDC_ISSUER=provider.issuer, OIDC_AUDIENCE="another")
    assert_challenged(other.me(provider.sign_in("anna", SCOPE)), INVALID_TOKEN)
    with_slash = serve(OIDC_ISSUER=f"{provider.issuer}/")
    assert_challenged(with_slash.me(provider.sign_in("anna", SCOPE)), INVALID_TOKEN)


def test_the_provider_restarts_with_other_keys(serve: Callable[..., Muster], provider: OidcProvider) -> None:
    muster = serve(OIDC_ISSUER=provider.issuer)
    before = provider.sign_in("anna", SCOPE)
    assert muster.me(before).status_code == 200
    with provider.stopped():
        assert muster.me(before).status_code == 200
        provider.rotate_keys()
    after = provider.sign_in("anna", SCOPE)
    wait_for(lambda: muster.me(after).status_code == 200, what="the new keys")
    assert_challenged(muster.me(Tokens(before)), INVALID_TOKEN)

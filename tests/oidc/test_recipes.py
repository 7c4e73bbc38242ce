"""Access tokens in the form of each provider that docs/identity-provider.md has a recipe for, and their ID tokens.

The claims are those of the providers' documentation: we have no account at most of them.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
import pytest

from app.core.errors import InvalidToken
from app.core.settings import Settings
from app.oidc.provider import Provider
from app.oidc.tokens import ProviderClaims
from tests.support.bearer_tokens import ABSENT, INVALID_TOKEN, assert_challenged
from tests.support.databases import ROOT
from tests.support.keycloak import Keycloak, bearer
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database

GUID = "6731de76-14a6-49ae-97bc-6eba6914391e"
COMMON = {"iss", "exp", "iat", "sub"}
ID_TOKEN = {"nonce": "n-0S6_WzA2Mj", "at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng", "email": "ada@example.com"}


BY_DEFAULT = {"typ": "JWT"}


class Recipe(NamedTuple):
    settings: dict[str, str]
    access: dict[str, Any]  # beside COMMON
    id: dict[str, Any]
    header: dict[str, Any] = BY_DEFAULT


RECIPES = {
    "Auth0": Recipe(
        {"OIDC_AUDIENCE": "https://muster.example.com", "OIDC_CLIENT_ID": "tM5l", "OIDC_TOKEN_MARK": "scope"},
        {
            "aud": ["https://muster.example.com", "https://tenant.eu.auth0.com/userinfo"],
            "azp": "tM5l",
            "scope": "openid email me operations:read",
        },
        {"aud": "tM5l", "sid": "s", "nickname": "ada"},
    ),
    "Auth0 with permissions": Recipe(
        {
            "OIDC_AUDIENCE": "https://muster.example.com",
            "OIDC_TOKEN_MARK": "permissions",
            "OIDC_SCOPE_CLAIM": "permissions",
        },
        {
            "aud": "https://muster.example.com",
            "azp": "tM5l",
            "scope": "openid",
            "permissions": ["me", "operations:read"],
        },
        {"aud": "tM5l", "sid": "s", "nickname": "ada"},
    ),
    "Entra ID": Recipe(
        {"OIDC_AUDIENCE": GUID, "OIDC_CLIENT_ID": GUID, "OIDC_TOKEN_MARK": "scp", "OIDC_SCOPE_CLAIM": "scp"},
        {
            "aud": GUID,
            "azp": GUID,
            "azpacr": "0",
            "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "scp": "me operations:read",
            "tid": "fabrikam",
            "ver": "2.0",
            "email": "ada@example.com",
        },
        {"aud": GUID, "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "tid": "fabrikam", "ver": "2.0"},
    ),
    "Okta": Recipe(
        {
            "OIDC_AUDIENCE": "api://default",
            "OIDC_CLIENT_ID": "0oabcd",
            "OIDC_TOKEN_MARK": "cid",
            "OIDC_SCOPE_CLAIM": "scp",
        },
        {
            "ver": 1,
            "jti": "AT.0mP4",
            "aud": "api://default",
            "cid": "0oabcd",
            "uid": "00uid4",
            "scp": ["openid", "me", "operations:read"],
        },
        {"ver": 1, "jti": "ID.4eAW", "aud": "0oabcd", "amr": ["pwd"], "idp": "00o1"},
        {"typ": ABSENT},
    ),
    "ZITADEL": Recipe(
        {
            "OIDC_AUDIENCE": "252699754973135882",
            "OIDC_CLIENT_ID": "253084@muster",
            "OIDC_TOKEN_MARK": "jti",
            "OIDC_SCOPE_CLAIM": "urn:zitadel:iam:org:project:roles",
        },
        {
            "aud": ["253084@muster", "252699754973135882"],
            "client_id": "253084@muster",
            "jti": "V2_252862212748621310",
            "urn:zitadel:iam:org:project:roles": {"me": {"25": "xyz.io"}, "operations:read": {"25": "xyz.io"}},
        },
        {
            "aud": ["253084@muster", "252699754973135882"],
            "azp": "253084@muster",
            "client_id": "253084@muster",
            "c_hash": "Ud8i49t31_k",
            "urn:zitadel:iam:org:project:roles": {"me": {"25": "xyz.io"}},
        },
    ),
    "authentik": Recipe(
        {
            "OIDC_AUDIENCE": "9Zbj",
            "OIDC_CLIENT_ID": "9Zbj",
            "OIDC_TOKEN_MARK": "uid",
            "OIDC_SCOPE_CLAIM": "muster_scopes",
        },
        {
            "aud": "9Zbj",
            "azp": "9Zbj",
            "uid": "7aXh",
            "acr": "goauthentik.io/providers/oauth2/default",
            "sid": "s",
            "muster_scopes": ["me", "operations:read"],
        },
        {"aud": "9Zbj", "acr": "goauthentik.io/providers/oauth2/default", "sid": "s", "muster_scopes": ["me"]},
    ),
    "Cognito": Recipe(
        {
            "OIDC_AUDIENCE": "57cbishk4j24pabc1234567890",
            "OIDC_CLIENT_ID": "57cbishk4j24pabc1234567890",
            "OIDC_AUDIENCE_CLAIM": "client_id",
            "OIDC_TOKEN_MARK": "token_use=access",
            "OIDC_SCOPE_PREFIX": "muster/",
        },
        {
            "client_id": "57cbishk4j24pabc1234567890",
            "token_use": "access",
            "scope": "openid muster/me muster/operations:read",
            "username": "ada",
            "cognito:groups": ["customers"],
        },
        {"aud": "57cbishk4j24pabc1234567890", "token_use": "id", "cognito:username": "ada"},
        {"typ": ABSENT},
    ),
}
on_each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def token(keycloak: Keycloak, recipe: Recipe, claims: dict[str, Any]) -> str:
    common = {name: value for name, value in keycloak.claims().items() if name in COMMON}
    return keycloak.keys[0].sign({**common, **claims}, **recipe.header)


def verify(keycloak: Keycloak, recipe: Recipe, claims: dict[str, Any]) -> ProviderClaims:
    settings = Settings.model_validate({name.lower(): value for name, value in recipe.settings.items()})

    async def verified() -> ProviderClaims:
        provider = Provider(keycloak.issuer, settings)
        try:
            return await provider.verify(token(keycloak, recipe, claims), datetime.now(UTC))
        finally:
            await provider.close()

    return asyncio.run(verified())


@on_each_recipe
def test_an_access_token_of_this_provider_is_accepted_with_its_scopes(keycloak: Keycloak, recipe: Recipe) -> None:
    assert {"me", "operations:read"} <= set(verify(keycloak, recipe, recipe.access).access.scope.split())


@on_each_recipe
def test_an_id_token_is_refused_with_and_without_optional_claims(keycloak: Keycloak, recipe: Recipe) -> None:
    for claims in (recipe.id, {**recipe.id, **ID_TOKEN}, {**recipe.access, **ID_TOKEN}):
        with pytest.raises(InvalidToken):
            verify(keycloak, recipe, claims)


@on_each_recipe
def test_a_token_for_another_audience_or_client_is_refused(keycloak: Keycloak, recipe: Recipe) -> None:
    audience = recipe.settings.get("OIDC_AUDIENCE_CLAIM", "aud")
    client = next(name for name in ("azp", "client_id", "cid") if name in recipe.access)
    others = [audience, client] if "OIDC_CLIENT_ID" in recipe.settings else [audience]
    for claim in others:
        with pytest.raises(InvalidToken):
            verify(keycloak, recipe, {**recipe.access, claim: "another"})


@on_each_recipe
def test_without_its_settings_no_token_of_a_provider_is_accepted(keycloak: Keycloak, recipe: Recipe) -> None:
    names = ("OIDC_AUDIENCE", "OIDC_CLIENT_ID", "OIDC_AUDIENCE_CLAIM")
    strict = recipe._replace(settings={name: recipe.settings[name] for name in names if name in recipe.settings})
    with pytest.raises(InvalidToken):
        verify(keycloak, strict, recipe.access)


def test_the_documented_recipes_are_these_settings() -> None:
    text = (ROOT / "docs" / "identity-provider.md").read_text()
    for name, recipe in RECIPES.items():
        for setting in ("OIDC_TOKEN_MARK", "OIDC_SCOPE_CLAIM", "OIDC_SCOPE_PREFIX", "OIDC_AUDIENCE_CLAIM"):
            value = recipe.settings.get(setting)
            assert value is None or f"`{setting}={value}`" in text, (name, setting)


@pytest.mark.parametrize("mark", ["sub", "aud", "azp", "email=ada@example.com", "groups"])
def test_a_claim_of_id_tokens_cannot_be_the_token_mark(mark: str) -> None:
    with pytest.raises(ValueError, match="but ID tokens do not"):
        Settings(oidc_token_mark=mark)


def test_a_service_with_these_settings_accepts_the_providers_people(
    serve: Callable[..., Muster], keycloak: Keycloak
) -> None:
    """The address comes from userinfo, as these access tokens name none."""
    recipe = RECIPES["Cognito"]
    muster = serve(OIDC_ISSUER=keycloak.issuer, **recipe.settings)
    keycloak.people["ada"] = {"sub": "ada", "email": "ada.cognito@example.com", "email_verified": "true"}
    me = {"sub": "ada"}

    def response_to(claims: dict[str, Any]) -> httpx.Response:
        return muster.client.get("/api/users/me", headers=bearer(token(keycloak, recipe, {**claims, **me})))

    assert response_to(recipe.access).json()["email"] == "ada.cognito@example.com"
    assert_challenged(response_to({**recipe.id, **ID_TOKEN}), INVALID_TOKEN)
    assert response_to({**recipe.access, "scope": "another/me"}).json()["type"] == "/problems/insufficient-scope"

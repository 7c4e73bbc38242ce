"""The provider of the tests is a real one: what Muster's own tests rely on is as the specifications say."""

import pytest

from tests.support.oidc_provider import AUDIENCE, CLIENT, PHONE, OidcProvider
from tests.support.servers import claims_of

pytestmark = pytest.mark.one_database


def test_discovery_names_the_endpoints_of_the_issuer(provider: OidcProvider) -> None:
    document = provider.discovery()
    assert document["issuer"] == provider.issuer
    for endpoint in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
        assert document[endpoint].startswith(f"{provider.issuer}/")
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True


@pytest.mark.parametrize("client", [PHONE, CLIENT])
def test_a_person_signs_in_and_refreshes(provider: OidcProvider, client: str) -> None:
    tokens = provider.sign_in("anna", "openid email profile me jobs", client=client)
    for access in (tokens.access, provider.refresh(tokens, client=client).access):
        claims = claims_of(access)
        assert (claims["iss"], claims["aud"], claims["sub"]) == (provider.issuer, "muster", "anna")
        assert (claims["client_id"], claims["scope"]) == (client, "me jobs")
        assert (claims["email"], claims["email_verified"]) == ("anna@provider.example", True)
        assert claims["iat"] - 60 <= claims["auth_time"] <= claims["iat"]
    assert claims_of(tokens["id_token"])["aud"] == client


def test_refusing_consent_returns_no_code(provider: OidcProvider) -> None:
    asked = {"client_id": PHONE, "response_type": "code", "scope": "openid", "resource": AUDIENCE}
    asked |= {"redirect_uri": "http://127.0.0.1/callback", "code_challenge": "x" * 43, "code_challenge_method": "S256"}
    url = str(provider.client.build_request("GET", "/auth", params=asked).url)
    assert "error=access_denied" in provider.visit(url, None)
    assert "code=" in provider.visit(url, "anna")


def test_other_keys_sign_after_a_rotation(provider: OidcProvider) -> None:
    def kids() -> set[str]:
        return {key["kid"] for key in provider.client.get("/jwks").json()["keys"]}

    before = kids()
    with provider.stopped():
        provider.rotate_keys()
    assert len(before) == 2
    assert before.isdisjoint(kids())

"""Access tokens of an identity provider as bearer tokens: those accepted and those refused (RFC 8725, RFC 9068)."""

import hmac
import json
from collections.abc import Callable
from time import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.core.crypto import base64url
from tests.support.bearer_tokens import ABSENT, INVALID_TOKEN, assert_challenged
from tests.support.keycloak import Keycloak, SigningKey, bearer, use
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database

STRANGERS_KEY = SigningKey("RS256")


# ---- Accepted tokens ----


@pytest.mark.parametrize("index", [0, 1], ids=["RS256", "ES256"])
def test_a_keycloak_token_authenticates_its_person(external: Muster, keycloak: Keycloak, index: int) -> None:
    claims = keycloak.claims()
    me = use(external, keycloak.keys[index].sign(claims)).json()
    assert (me["email"], me["name"], me["role"], me["is_verified"]) == (claims["email"], "Ada Demo", "user", True)
    again = keycloak.token(sub=claims["sub"], email="other@example.com", name="Other")
    assert use(external, again).json() == me


def test_an_rfc_9068_token_is_accepted_too(external: Muster, keycloak: Keycloak) -> None:
    usual: dict[str, Any] = {"typ": ABSENT, "azp": ABSENT, "client_id": "muster-pages", "aud": "muster"}
    for kind in ("at+jwt", "application/at+jwt"):
        assert use(external, keycloak.token(header={"typ": kind}, **usual)).status_code == 200
    brought = {"jku": "https://attacker.example", "x5u": "https://attacker.example", "jwk": STRANGERS_KEY.public}
    assert use(external, keycloak.token(header=brought)).status_code == 200


def test_scopes_in_force_are_those_of_the_token_and_of_the_role(external: Muster, keycloak: Keycloak) -> None:
    token = keycloak.token(scope="openid me users:read")
    assert use(external, token).status_code == 200
    for path, scope in (("/api/users", "users:read"), ("/api/operations", "operations:read")):
        answer = external.client.get(path, headers=bearer(token))
        assert (answer.status_code, answer.json()["scope"]) == (403, scope)
    for other in (ABSENT, ["about me"]):  # a name in a list is one, even with a space in it
        assert use(external, keycloak.token(scope=other)).json()["type"] == "/problems/insufficient-scope"


def test_our_own_tokens_still_work_without_requests_to_the_provider(external: Muster, keycloak: Keycloak) -> None:
    asked = keycloak.asked.copy()
    tokens = external.new_account().tokens()
    assert external.me(tokens).status_code == 200
    assert use(external, keycloak.token(iss="https://attacker.example")).status_code == 401
    assert use(external, "a.b.c").status_code == 401
    assert keycloak.asked == asked


def test_provider_tokens_are_rejected_without_oidc_issuer(muster: Muster, keycloak: Keycloak) -> None:
    assert_challenged(use(muster, keycloak.token()), INVALID_TOKEN)


def test_provider_tokens_are_unknown_to_revocation_introspection_and_the_cookie(
    external: Muster, keycloak: Keycloak
) -> None:
    token, admin = keycloak.token(), external.admin().tokens()
    assert use(external, token).status_code == 200
    assert external.client.post("/api/auth/revoke", data={"token": token}).status_code == 200
    asked = external.client.post("/api/auth/introspect", data={"token": token}, headers=admin.bearer)
    assert asked.json() == {"active": False}
    assert use(external, token).status_code == 200
    cookie = external.client.get("/api/users/me", headers={"Cookie": f"muster={token}"})
    assert_challenged(cookie, INVALID_TOKEN)


# ---- Refused tokens ----

NOW = int(time())
WRONG: dict[str, list[Any]] = {
    "iss": [ABSENT, "", None, 1, ["x"]],
    "aud": [ABSENT, None, "", "account", ["account"], {"muster": 1}, [["muster"]], "muster "],
    "azp": [ABSENT, None, "", 1, "stranger", ["muster-app"]],
    "sub": [ABSENT, None, "", 1, "x" * 256, "a\0b", "é", "\ud800", ["x"]],
    "typ": [ABSENT, None, "ID", "Refresh", "Offline", "Logout", "DPoP", "bearer", ["Bearer"]],
    "exp": [ABSENT, None, "never", True, 1.5, NOW - 100, 10**30, float("nan")],
    "iat": [ABSENT, None, "now", 1.5, -1, NOW + 100_000],
    "nbf": [None, "now", 1.5, NOW + 100_000],
    "scope": [None, 1, ["me", 1]],
    "auth_time": [None, "now", 1.5, 10**30],
    "cnf": [{"jkt": "proof"}, None],
}


HEADERS: list[dict[str, Any]] = [
    *[{"typ": kind} for kind in ("logout+jwt", "at+JWT", None, ["JWT"])],
    *[{"alg": algorithm} for algorithm in ("none", "RS512", "PS256", "ES256", ["RS256"])],
    {"crit": ["exp"]},
    {"kid": 1},
    {"kid": ABSENT},  # there are two keys
]


@pytest.mark.both_databases
@pytest.mark.parametrize("claim", WRONG)
def test_each_claim_is_required_and_checked(external: Muster, keycloak: Keycloak, claim: str) -> None:
    for value in WRONG[claim]:
        answer = use(external, keycloak.token(**{claim: value}))
        assert answer.status_code == 401, (claim, value)
        assert_challenged(answer, INVALID_TOKEN)


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: next(iter(header)))
def test_a_token_with_another_header_is_refused(external: Muster, keycloak: Keycloak, header: dict[str, Any]) -> None:
    if "alg" not in header:
        token = keycloak.token(header=header)
    else:
        members = {"typ": "JWT", "kid": keycloak.keys[0].id, **header}
        payload = json.dumps(keycloak.claims()).encode()
        token = f"{base64url(json.dumps(members).encode())}.{base64url(payload)}.{base64url(b'x' * 256)}"
    assert_challenged(use(external, token), INVALID_TOKEN)


def test_a_header_nested_as_deeply_as_python_parses_is_refused(external: Muster, keycloak: Keycloak) -> None:
    """Two parsers, at different depths of the stack, would not agree about the last level that is allowed."""
    payload = base64url(json.dumps(keycloak.claims()).encode())
    for depth in range(900, 1000):
        header = json.dumps({"alg": "RS256", "typ": "JWT", "kid": keycloak.keys[0].id, "x": 0})
        nested = header.replace("0}", f"{'[' * depth}{']' * depth}}}")
        answer = use(external, f"{base64url(nested.encode())}.{payload}.{base64url(b'x' * 256)}")
        assert answer.status_code == 401, depth


def test_other_tokens_of_the_realm_give_no_access(external: Muster, keycloak: Keycloak) -> None:
    """An ID token for the same client, a refresh token, and an access token of another realm on the same host."""
    for changes in (
        {"typ": "ID", "aud": "muster-app", "nonce": "n"},
        {"typ": "ID", "aud": ["muster", "muster-app"]},
        {"typ": "Refresh", "aud": keycloak.issuer},
        {"iss": f"{keycloak.host}/realms/other"},
        {"iss": f"{keycloak.issuer}/"},
    ):
        assert_challenged(use(external, keycloak.token(**changes)), INVALID_TOKEN)


def test_the_providers_public_key_is_not_accepted_as_an_hmac_secret(external: Muster, keycloak: Keycloak) -> None:
    """HS256 with the key that everybody knows, in each form in which it could be mistaken for a secret."""
    key = keycloak.keys[0]
    forms = [(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)]
    secrets = [key.private.public_key().public_bytes(*form) for form in forms] + [json.dumps(key.public).encode()]
    for secret in secrets:
        header = base64url(json.dumps({"alg": "HS256", "typ": "JWT", "kid": key.id}).encode())
        text = f"{header}.{base64url(json.dumps(keycloak.claims()).encode())}"
        assert_challenged(
            use(external, f"{text}.{base64url(hmac.digest(secret, text.encode(), 'sha256'))}"), INVALID_TOKEN
        )


def test_a_signature_by_another_key_or_of_other_claims_is_refused(external: Muster, keycloak: Keycloak) -> None:
    named = {"kid": keycloak.keys[0].id, "jwk": STRANGERS_KEY.public}
    assert_challenged(use(external, keycloak.token(key=STRANGERS_KEY, header=named)), INVALID_TOKEN)
    head, payload, signature = keycloak.token().split(".")
    other = keycloak.token().split(".")[1]
    for token in (f"{head}.{other}.{signature}", f"{head}.{payload}.", f"{head}.{payload}.{signature[:-4]}"):
        assert_challenged(use(external, token), INVALID_TOKEN)


def test_repeated_claims_and_claims_that_are_not_an_object_are_refused(external: Muster, keycloak: Keycloak) -> None:
    """One reader would take the first, another the last: here neither is taken, however well it is signed."""
    key, claims = keycloak.keys[0], json.dumps(keycloak.claims())
    wrong = ['{"sub": "somebody else", ' + claims[1:], f"[{claims}]", claims[:-1]]
    head = base64url(json.dumps({"alg": "RS256", "typ": "JWT", "kid": key.id}).encode())
    assert use(external, _signed(key, head, claims)).status_code == 200
    for text in wrong:
        assert_challenged(use(external, _signed(key, head, text)), INVALID_TOKEN)


def _signed(key: SigningKey, head: str, payload: str) -> str:
    from jose import jwk  # noqa: PLC0415  # used here alone

    text = f"{head}.{base64url(payload.encode())}"
    return f"{text}.{base64url(jwk.construct(key.private, 'RS256').sign(text.encode()))}"


def test_the_clock_skew_is_a_minute_as_for_our_own_tokens(external: Muster, keycloak: Keycloak) -> None:
    now = int(time())
    for claim, moment, status in (("exp", now - 30, 200), ("iat", now + 30, 200), ("nbf", now + 100, 401)):
        changes: dict[str, Any] = {claim: moment}
        assert use(external, keycloak.token(**changes)).status_code == status


@pytest.mark.slow
def test_any_client_is_accepted_unless_the_settings_name_some(serve: Callable[..., Muster], keycloak: Keycloak) -> None:
    muster = serve(OIDC_ISSUER=keycloak.issuer, OIDC_AUDIENCE="muster-test")
    assert use(muster, keycloak.token(azp="stranger", aud="muster-test")).status_code == 200
    assert_challenged(use(muster, keycloak.token(azp="stranger")), INVALID_TOKEN)
    assert_challenged(use(muster, keycloak.token(azp=ABSENT, aud="muster-test")), INVALID_TOKEN)

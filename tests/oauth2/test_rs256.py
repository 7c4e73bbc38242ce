"""RS256: the published keys (rows M1), tokens that are not ours (J1), and keys that change while tokens live (R13)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import RSAKey

from tests.support.bearer_tokens import (
    ABSENT,
    INVALID_TOKEN,
    KEY,
    assert_challenged,
    header_of,
    me_with,
    rsa_forged,
    rsa_signed,
    signed,
)
from tests.support.bearer_tokens import HEADER as OWN_HEADER
from tests.support.databases import SECRET_KEY, fresh_database
from tests.support.rsa_keys import key_file, rsa_key
from tests.support.servers import Muster, Tokens, claims_of
from tests.support.sessions import NOBODY, assert_lives

pytestmark = pytest.mark.one_database

JWKS = "/.well-known/jwks.json"
METADATA = "/.well-known/oauth-authorization-server"


@pytest.fixture(scope="module")
def issuer(folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance with a key file. How a token is signed does not depend on the database."""
    files = str(key_file(folder, "rs256"))
    with fresh_database("sqlite", folder, postgres) as url, Muster(url, folder, JWT_PRIVATE_KEY_FILES=files) as served:
        yield served


@pytest.fixture
def tokens(issuer: Muster) -> Tokens:
    return issuer.new_account().tokens()


def published(muster: Muster) -> list[dict[str, Any]]:
    answer = muster.client.get(JWKS)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    keys: list[dict[str, Any]] = answer.json()["keys"]
    return keys


# ---- Published keys: M1 ----


def test_public_keys_are_published_and_nothing_private(issuer: Muster, tokens: Tokens) -> None:
    (key,) = published(issuer)
    assert key.keys() == {"kty", "use", "alg", "kid", "n", "e"}
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
    assert key["kid"] == RSAKey.import_key(key).thumbprint(), "RFC 7638"
    assert header_of(tokens.access) == {"alg": "RS256", "typ": "at+jwt", "kid": key["kid"]}


def test_nothing_is_published_while_tokens_are_hs256(muster: Muster) -> None:
    assert published(muster) == []


def test_the_metadata_names_the_endpoints_and_what_they_support(issuer: Muster, tokens: Tokens) -> None:
    answer = issuer.client.get(METADATA)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    metadata = answer.json()
    assert metadata["issuer"] == claims_of(tokens.access)["iss"]
    assert metadata["response_types_supported"] == ["code"]
    assert set(metadata["grant_types_supported"]) == {"authorization_code", "password", "refresh_token"}
    assert metadata["token_endpoint_auth_methods_supported"] == ["none"]
    assert set(tokens["scope"].split()) <= set(metadata["scopes_supported"])
    for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        path = metadata[name].removeprefix(metadata["issuer"])
        assert issuer.client.post(path, data={"a": "b"}).status_code in {400, 401}, path
    for name in ("jwks_uri", "service_documentation"):
        assert issuer.client.get(metadata[name].removeprefix(metadata["issuer"]), follow_redirects=True).is_success


# ---- Tokens that are not ours: J1 ----


def test_a_token_made_by_these_tests_passes(issuer: Muster, tokens: Tokens) -> None:
    brought = {"jku": "https://attacker.example/keys", "jwk": published(issuer)[0], "x5u": "https://attacker.example/"}
    for header in ({}, {"typ": "application/at+jwt"}, brought):
        assert me_with(issuer, f"Bearer {rsa_forged(tokens, header=header)}").status_code == 200


def test_a_public_key_is_not_accepted_as_an_hmac_secret(issuer: Muster, tokens: Tokens) -> None:
    """Algorithm confusion: RFC 8725 section 2.1."""
    public = rsa_key("rs256").public_key()
    formats = [(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), (Encoding.PEM, PublicFormat.PKCS1)]
    formats += [(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), (Encoding.DER, PublicFormat.PKCS1)]
    secrets = [public.public_bytes(*kind) for kind in formats]
    secrets += [secret.strip() for secret in secrets] + [json.dumps(published(issuer)[0]).encode(), b""]
    for secret in secrets:
        for kid in (header_of(tokens.access)["kid"], OWN_HEADER["kid"]):
            token = signed({**OWN_HEADER, "kid": kid}, claims_of(tokens.access), key=secret)
            assert_challenged(me_with(issuer, f"Bearer {token}"), INVALID_TOKEN)


def test_each_key_is_for_its_own_algorithm(issuer: Muster, tokens: Tokens) -> None:
    claims, header = claims_of(tokens.access), header_of(tokens.access)
    key = rsa_key("rs256")
    own_kid = {**header, "kid": OWN_HEADER["kid"]}
    refused = [rsa_signed({**header, "alg": alg}, claims, key) for alg in ("none", "HS256", "RS384", "RS512", "ES256")]
    refused += [
        rsa_signed({**header, "alg": "PS256"}, claims, key, pss=True),
        rsa_signed(header, claims, key, pss=True),
    ]
    refused += [rsa_signed(own_kid, claims, key), rsa_signed({**own_kid, "alg": "HS256"}, claims, key)]
    refused += [signed({**OWN_HEADER, "kid": header["kid"]}, claims, key=KEY), f"{tokens.access.rpartition('.')[0]}."]
    for token in refused:
        assert_challenged(me_with(issuer, f"Bearer {token}"), INVALID_TOKEN)


WRONG: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *(({name: value}, {}) for name, value in {"typ": "JWT", "crit": ["exp"], "kid": "other"}.items()),
    *(({name: ABSENT}, {}) for name in ("typ", "kid", "alg")),
    *(({}, {name: ABSENT}) for name in ("iss", "aud", "sub", "sid", "gen", "exp", "iat", "jti", "scope")),
    *(({}, {name: value}) for name, value in {"iss": "https://other.example", "aud": "other", "sub": NOBODY}.items()),
    *(({}, {name: value}) for name, value in {"exp": 1, "nbf": 9e9, "iat": 9_999_999_999}.items()),
]


def test_other_headers_and_claims_are_refused(issuer: Muster, tokens: Tokens) -> None:
    for header, claims in WRONG:
        answer = me_with(issuer, f"Bearer {rsa_forged(tokens, header=header, **claims)}")
        assert answer.status_code == 401, (header, claims)
        assert_challenged(answer, INVALID_TOKEN)


def test_another_rsa_key_is_refused_also_when_the_token_brings_it(issuer: Muster, tokens: Tokens) -> None:
    other = RSAKey.import_key(rsa_key("another").public_key()).as_dict()
    for header in ({}, {"jwk": other}, {"kid": other.get("kid", "x"), "jwk": other}):
        assert_challenged(me_with(issuer, f"Bearer {rsa_forged(tokens, key='another', header=header)}"), INVALID_TOKEN)


def test_tokens_signed_with_the_secret_are_accepted_beside_rs256(issuer: Muster, tokens: Tokens) -> None:
    """Otherwise everybody would be signed out when the first key file is named, and no cookie would work."""
    assert me_with(issuer, f"Bearer {signed(OWN_HEADER, claims_of(tokens.access))}").status_code == 200


def test_cookie_tokens_are_signed_with_the_secret_and_not_with_the_published_key(issuer: Muster) -> None:
    ada = issuer.new_account()
    with issuer.another_client() as browser:
        form = {"username": ada.email, "password": ada.password}
        answer = browser.post("/api/auth/cookie/login", data=form, headers={"Origin": issuer.url})
        assert answer.is_success, answer.text
        (cookie,) = browser.cookies.jar
        assert header_of(cookie.value or "")["alg"] == "HS256"
        assert browser.get("/api/users/me").status_code == 200


# ---- Keys that change: R13 ----


def test_nobody_is_signed_out_when_key_files_change(folder: Path, postgres: str) -> None:
    old, new = key_file(folder, "old"), key_file(folder, "new")
    with (
        fresh_database("sqlite", folder, postgres) as url,
        Muster(url, folder, JWT_PRIVATE_KEY_FILES=str(old)) as muster,
    ):
        ada = muster.new_account()
        phone, tablet = ada.tokens(), ada.tokens()
        for files in (f"{old},{new}", f"{new},{old},{new}"):
            muster.restart(JWT_PRIVATE_KEY_FILES=files)
            assert len(published(muster)) == 2
            assert muster.me(tablet).status_code == 200
            phone = assert_lives(muster, phone)
        assert header_of(phone.access)["kid"] == published(muster)[0]["kid"]
        muster.restart(JWT_PRIVATE_KEY_FILES=str(new))
        assert muster.me(phone).status_code == 200
        assert_challenged(muster.me(tablet), INVALID_TOKEN)
        assert muster.refresh(tablet.refresh).status_code == 200, "refresh tokens depend on SECRET_KEYS alone"


@pytest.mark.slow
def test_the_first_key_file_may_arrive_process_by_process(serve: Callable[..., Muster], folder: Path) -> None:
    """A process that knows a file but does not sign with it yet can serve beside one that does."""
    file = key_file(folder, "first")
    waiting = serve(JWT_PRIVATE_KEY_FILES=f"HS256,{file}", SECRET_KEYS=SECRET_KEY)
    signing = serve(JWT_PRIVATE_KEY_FILES=str(file), PUBLIC_URL=f"http://localhost:{waiting.port}")
    ada = waiting.new_account()
    by_secret = ada.tokens()
    by_file = Tokens(signing.refresh(by_secret.refresh).json())
    assert [header_of(each.access)["alg"] for each in (by_secret, by_file)] == ["HS256", "RS256"]
    assert published(waiting) == published(signing)
    for instance in (waiting, signing):
        for each in (by_secret, by_file):
            assert instance.me(each).status_code == 200

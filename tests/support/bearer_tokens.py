"""Access tokens made by the tests, as the service signs them or nearly so, and how they are refused."""

import hashlib
import hmac
import json
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from app.core.crypto import base64url, derive_keys, from_base64url
from tests.support.databases import SECRET_KEY
from tests.support.rsa_keys import rsa_key
from tests.support.servers import Muster, Tokens, claims_of

KEY = derive_keys([SECRET_KEY], "access")[0]
HEADER = {"alg": "HS256", "typ": "at+jwt", "kid": hashlib.sha256(KEY).hexdigest()[:16]}
HASHES = {"RS256": hashes.SHA256(), "RS384": hashes.SHA384(), "RS512": hashes.SHA512()}
ABSENT = object()  # instead of a member or a claim that is left out

CHALLENGE = 'Bearer realm="muster"'
INVALID_TOKEN = 'Bearer realm="muster", error="invalid_token"'


def signed(header: object, payload: object, *, key: bytes = KEY, digest: str = "sha256") -> str:
    text = f"{base64url(json.dumps(header).encode())}.{base64url(json.dumps(payload).encode())}"
    return f"{text}.{base64url(hmac.digest(key, text.encode(), digest))}"


def forged(tokens: Tokens, *, header: dict[str, Any] | None = None, key: bytes = KEY, **claims: Any) -> str:
    """The access token with other claims and header members, signed again with the service's own key."""
    members = {**HEADER, **(header or {})}
    return signed(present(members), present({**claims_of(tokens.access), **claims}), key=key)


def rsa_forged(tokens: Tokens, *, key: str = "rs256", header: dict[str, Any] | None = None, **claims: Any) -> str:
    """The same of a token that was signed with a key file."""
    members = {**header_of(tokens.access), **(header or {})}
    changed = {**claims_of(tokens.access), **claims}
    return rsa_signed(present(members), present(changed), rsa_key(key))


def present(members: dict[str, Any]) -> dict[str, Any]:
    """Those that are not ABSENT."""
    return {name: value for name, value in members.items() if value is not ABSENT}


def me_with(muster: Muster, *authorization: str) -> httpx.Response:
    """The response to a request with these Authorization headers."""
    return muster.client.get("/api/users/me", headers=[("Authorization", value) for value in authorization])


def assert_challenged(answer: httpx.Response, challenge: str, *, status: int = 401) -> None:
    """The response is a refusal by RFC 6750 section 3, with a problem document that says the same to a program."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.headers["www-authenticate"] == challenge
    assert answer.json()["status"] == status


def header_of(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(from_base64url(token.partition(".")[0]))
    return decoded


def rsa_signed(header: dict[str, Any], claims: dict[str, Any], key: RSAPrivateKey, *, pss: bool = False) -> str:
    text = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    algorithm = HASHES.get(header.get("alg", ""), hashes.SHA256())
    scheme = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size) if pss else padding.PKCS1v15()
    return f"{text}.{base64url(key.sign(text.encode(), scheme, algorithm))}"

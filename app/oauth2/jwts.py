"""JSON Web Tokens (RFC 7515, RFC 7519), ours and the identity provider's, and the keys that sign and verify them.

Only this module uses JOSE.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jose import jwk, jws
from jose.exceptions import JOSEError

from app.core.crypto import MIN_RSA_BITS, from_base64url, public_jwk, read_private_key
from app.core.errors import InvalidToken
from app.core.strict_json import parse

MAX_LENGTH = 8192  # characters: Keycloak puts every role of a person into a token


class Jwt(NamedTuple):
    """The header and payload of a JWT whose signature is not verified yet."""

    header: dict[str, Any]
    payload: dict[str, Any]


def parse_jwt(token: str) -> Jwt:
    """Parse strictly, so that no other parser reads the token differently; else InvalidToken."""
    if len(token) > MAX_LENGTH:
        raise InvalidToken
    try:
        head, body, _ = map(from_base64url, token.split("."))  # ValueError unless there are three parts
        header, payload = parse(head), parse(body)
    except ValueError as error:
        raise InvalidToken from error
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise InvalidToken
    return Jwt(header, payload)


@dataclass(frozen=True, slots=True)
class JwtKey:
    """A key bound to one algorithm, parsed once by python-jose. `public` is its JWK; empty for an HMAC key.

    `signing` is the object that signs: the identity provider's keys have none.
    """

    id: str | None
    algorithm: str
    public: dict[str, str]
    parsed: Any = field(compare=False)
    signing: Any = field(default=None, compare=False)

    def has_signed(self, token: str) -> bool:
        """Whether it has signed a token that `parse_jwt` accepts. Compare the algorithm in its header first."""
        signed, _, signature = token.rpartition(".")
        return bool(self.parsed.verify(signed.encode(), from_base64url(signature)))

    def sign(self, payload: dict[str, Any], token_type: str) -> str:
        return str(jws.sign(payload, self.signing, {"typ": token_type, "kid": self.id}, self.algorithm))


# ---- Our own keys: RFC 7518 sections 3.2 and 3.3 ----


def hmac_key(key: bytes) -> JwtKey:
    parsed = jwk.construct(key, "HS256")
    return JwtKey(hashlib.sha256(key).hexdigest()[:16], "HS256", {}, parsed, parsed)


def rsa_key(file: Path) -> JwtKey:
    key = read_private_key(file)
    public, signing = public_jwk(key.public_key()), jwk.construct(key, "RS256")
    return JwtKey(public["kid"], "RS256", public, signing.public_key(), signing)


# ---- The identity provider's public keys: RFC 7517 ----


def select_keys(keys: Sequence[JwtKey], header: dict[str, Any]) -> list[JwtKey]:
    """The keys that a JWT's header names; none if the provider may have a new one, InvalidToken if none can fit.

    A header without `kid` names the only key that there is (OpenID Connect Core section 10.1).
    """
    key_id, algorithm = header.get("kid"), header.get("alg")
    if algorithm not in ("RS256", "ES256") or "crit" in header or not isinstance(key_id, str | None):
        raise InvalidToken
    named = [key for key in keys if key_id is None or key.id == key_id]
    fitting = [key for key in named if key.algorithm == algorithm]
    if named and (not fitting or (key_id is None and len(keys) > 1)):
        raise InvalidToken
    return fitting


def parse_jwks(jwks: dict[str, Any]) -> list[JwtKey]:
    """The keys of a JWK Set (RFC 7517) that may verify signatures: RSA of at least 2,048 bits, and P-256."""
    return [key for key in map(_parse_jwk, jwks["keys"]) if key is not None]


def _parse_jwk(described: Any) -> JwtKey | None:
    match described:
        case {"kty": "RSA", "n": str(n), "e": str(e)}:
            algorithm, public = "RS256", {"kty": "RSA", "n": n, "e": e}
        case {"kty": "EC", "crv": "P-256", "x": str(x), "y": str(y)}:
            algorithm, public = "ES256", {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        case _:
            return None
    key_id, operations = described.get("kid"), described.get("key_ops", ["verify"])
    is_to_verify = isinstance(operations, list) and "verify" in operations and described.get("use", "sig") == "sig"
    if not is_to_verify or described.get("alg", algorithm) != algorithm or not isinstance(key_id, str | None):
        return None
    try:
        parsed = jwk.construct(public, algorithm)
    except (JOSEError, ValueError, TypeError):
        return None
    is_weak = algorithm == "RS256" and parsed.prepared_key.key_size < MIN_RSA_BITS
    return None if is_weak else JwtKey(key_id, algorithm, public, parsed)

"""Tokens and keys of another issuer (RFC 7515, RFC 7517, by the rules of RFC 8725): JOSE beside app/security.py."""

from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any

from jose import jwk, jws
from jose.exceptions import JOSEError

from app.keys import MIN_BITS
from app.security import InvalidAccessToken, is_canonical
from app.strict_json import parse

ALGORITHMS = ("RS256", "ES256")
_MAX_LENGTH = 8192  # Keycloak lists every role


@dataclass(frozen=True, slots=True)
class Jwt:
    """A token taken apart, whose signature is still to be checked."""

    text: str
    header: dict[str, Any]
    payload: dict[str, Any]


def take_apart(token: str) -> Jwt:
    """Strictly, so that nobody reads it in another way; else InvalidAccessToken."""
    parts = token.split(".")
    try:
        if len(token) > _MAX_LENGTH or len(parts) != 3 or not is_canonical(token):
            raise InvalidAccessToken
        header, payload = (parse(urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except ValueError as error:
        raise InvalidAccessToken from error
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise InvalidAccessToken
    return Jwt(token, header, payload)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, bound to one algorithm."""

    id: str | None
    algorithm: str
    parsed: Any

    def has_signed(self, jwt: Jwt) -> bool:
        try:
            jws.verify(jwt.text, self.parsed, [self.algorithm])
        except (JOSEError, ValueError, TypeError, KeyError, AttributeError):  # python-jose's own surprises included
            return False
        return True


def verifying_keys(jwks: dict[str, Any]) -> list[VerifyingKey]:
    """Those of a JWK set that may verify: RSA of at least 2,048 bits and P-256, for signatures. Others are left out."""
    return [key for key in map(_verifying_key, jwks["keys"]) if key is not None]


def _verifying_key(described: Any) -> VerifyingKey | None:
    match described:
        case {"kty": "RSA", "n": str(n), "e": str(e)}:
            algorithm, public = "RS256", {"kty": "RSA", "n": n, "e": e}
        case {"kty": "EC", "crv": "P-256", "x": str(x), "y": str(y)}:
            algorithm, public = "ES256", {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        case _:
            return None
    key_id, operations = described.get("kid"), described.get("key_ops", ["verify"])
    if described.get("use", "sig") != "sig" or described.get("alg", algorithm) != algorithm:
        return None
    if not isinstance(key_id, str | None) or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        parsed = jwk.construct(public, algorithm)
    except (JOSEError, ValueError, TypeError):
        return None
    if algorithm == "RS256" and parsed.prepared_key.key_size < MIN_BITS:
        return None
    return VerifyingKey(key_id, algorithm, parsed)

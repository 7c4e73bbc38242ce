"""The identity provider's public keys (RFC 7517): parsing them, and selecting those of a JWT."""

from collections.abc import Sequence
from typing import Any

from jose import jwk
from jose.exceptions import JOSEError

from app.core.crypto import MIN_RSA_BITS
from app.core.errors import InvalidToken
from app.oauth2.jwts import VerifyingKey

ALGORITHMS = ("RS256", "ES256")


def select_keys(keys: Sequence[VerifyingKey], header: dict[str, Any]) -> list[VerifyingKey]:
    """The keys that a JWT's header names; none if the provider may have a new one, InvalidToken if none can fit.

    A header without `kid` names the only key that there is (OpenID Connect Core section 10.1).
    """
    key_id, algorithm = header.get("kid"), header.get("alg")
    if algorithm not in ALGORITHMS or "crit" in header or not isinstance(key_id, str | None):
        raise InvalidToken
    named = [key for key in keys if key_id is None or key.id == key_id]
    fitting = [key for key in named if key.algorithm == algorithm]
    if named and (not fitting or (key_id is None and len(keys) > 1)):
        raise InvalidToken
    return fitting


def parse_jwks(jwks: dict[str, Any]) -> list[VerifyingKey]:
    """The keys of a JWK Set (RFC 7517) that may verify signatures: RSA of at least 2,048 bits, and P-256."""
    return [key for key in map(_parse_jwk, jwks["keys"]) if key is not None]


def _parse_jwk(described: Any) -> VerifyingKey | None:
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
    return None if is_weak else VerifyingKey(key_id, algorithm, public, parsed)

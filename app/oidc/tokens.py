"""Access tokens and keys of another issuer, by the rules of RFC 8725: JOSE without I/O."""

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeGuard
from uuid import UUID

from jose import jwk, jws
from jose.exceptions import JOSEError
from pydantic import TypeAdapter, ValidationError

from app.core.crypto import MIN_BITS, base64url, from_base64url
from app.core.strict_json import parse
from app.models.types import Name, email_address
from app.oauth2.access_tokens import ACCESS_TOKEN_TYPES, AccessClaims, InvalidAccessToken, integer

ALGORITHMS = ("RS256", "ES256")
MAX_LENGTH = 8192  # Keycloak lists every role
_UNKNOWN = UUID(int=0)
_LAST_MOMENT = 253_402_300_799  # of the year 9999
_NAME: TypeAdapter[str] = TypeAdapter(Name)


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
        if len(token) > MAX_LENGTH or len(parts) != 3:
            raise InvalidAccessToken
        head, body, _ = map(from_base64url, parts)
        header, payload = parse(head), parse(body)
    except ValueError as error:
        raise InvalidAccessToken from error
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise InvalidAccessToken
    return Jwt(token, header, payload)


# ---- What it claims ----


@dataclass(frozen=True, slots=True)
class Profile:
    """Who somebody is to others, as far as the provider says it."""

    email: str | None
    is_verified: bool
    name: str | None


@dataclass(frozen=True, slots=True)
class ForeignClaims:
    """An access token of the provider. `access` is what it is here, but for the ids that only the database knows; its
    auth_time is 0 where the provider does not say when the person signed in."""

    issuer: str
    subject: str
    realm_roles: frozenset[str]
    profile: Profile
    access: AccessClaims


def claims_of(jwt: Jwt, issuer: str, audience: str, clients: Collection[str]) -> ForeignClaims:
    """What a token claims that is meant for us, by RFC 9068 section 4 or as Keycloak makes it; else InvalidAccessToken.
    The signature is still to be checked."""
    payload = jwt.payload
    client = payload.get("azp", payload.get("client_id"))
    scope = payload.get("scope", "")
    if not _is_bearer_token(jwt) or audience not in _audiences(payload) or not isinstance(scope, str):
        raise InvalidAccessToken
    if not isinstance(client, str) or (clients and client not in clients):
        raise InvalidAccessToken
    return _claims(payload, issuer, client, frozenset(scope.split()))


def id_claims_of(jwt: Jwt, issuer: str, client: str, nonce: str, access_token: str) -> ForeignClaims:
    """The same of an ID token, by OpenID Connect Core section 3.1.3.7."""
    payload, audiences = jwt.payload, _audiences(jwt.payload)
    if client not in audiences or payload.get("azp", client if len(audiences) == 1 else None) != client:
        raise InvalidAccessToken
    if payload.get("nonce") != nonce or payload.get("at_hash", digest(access_token, 16)) != digest(access_token, 16):
        raise InvalidAccessToken
    return _claims(payload, issuer, client, frozenset())


def digest(text: str, length: int = 32) -> str:
    """The first bytes of SHA-256: an `at_hash` by either algorithm has half of them, an S256 challenge has all."""
    return base64url(sha256(text.encode()).digest()[:length])


def _claims(payload: dict[str, Any], issuer: str, client: str, scope: frozenset[str]) -> ForeignClaims:
    subject = payload.get("sub")
    if payload.get("iss") != issuer or not _is_subject(subject):
        raise InvalidAccessToken
    access = AccessClaims(
        subject=_UNKNOWN,
        session_id=_UNKNOWN,
        generation=0,
        client_id=client,
        scope=scope,
        auth_time=_moment(payload.get("auth_time", 0)),
        issued_at=_moment(payload.get("iat")),
        expires_at=_moment(payload.get("exp")),
        not_before=_moment(payload.get("nbf", payload.get("iat"))),
        token_id="",
    )
    return ForeignClaims(issuer, subject, _realm_roles(payload), profile_of(payload), access)


def _is_bearer_token(jwt: Jwt) -> bool:
    """By the header (RFC 9068), or by Keycloak's claim; never an ID token, a refresh token or one bound to a key of its
    client (RFC 7800), which is worth nothing without the proof."""
    header, claim = jwt.header.get("typ", "JWT"), jwt.payload.get("typ")
    named = header in ACCESS_TOKEN_TYPES or (header == "JWT" and claim is not None)
    return named and claim in (None, "Bearer") and "cnf" not in jwt.payload


def _audiences(payload: dict[str, Any]) -> list[Any]:
    audience = payload.get("aud")
    return audience if isinstance(audience, list) else [audience]


def _is_subject(subject: object) -> TypeGuard[str]:
    """OpenID Connect Core section 2: at most 255 ASCII characters."""
    return isinstance(subject, str) and 0 < len(subject) <= 255 and subject.isascii() and subject.isprintable()


def _moment(value: object) -> int:
    """A NumericDate that is a time in the calendar, too."""
    moment = integer(value)
    if not 0 <= moment <= _LAST_MOMENT:
        raise InvalidAccessToken
    return moment


def _realm_roles(payload: dict[str, Any]) -> frozenset[str]:
    match payload.get("realm_access"):
        case {"roles": list(roles)}:
            return frozenset(role for role in roles if isinstance(role, str))
    return frozenset()


def profile_of(claims: dict[str, Any]) -> Profile:
    """OpenID Connect Core section 5.1. What is no address or no name of ours is none."""
    try:
        email = email_address(claims["email"]) if isinstance(claims.get("email"), str) else None
    except ValueError:
        email = None
    try:
        name = _NAME.validate_python(claims.get("name"))
    except ValidationError:
        name = None
    return Profile(email, claims.get("email_verified") is True, name)


# ---- Who signed it ----


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

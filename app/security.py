"""Keys, the tokens made from them, and JOSE: nothing else in the project signs or verifies.

Server keys are derived from SECRET_KEYS by HKDF (RFC 5869), one for each use: a token of one use is noise to another.
"""

import hashlib
import hmac
import json
import re
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jose import jwk, jws
from jose.exceptions import JOSEError

from app.keys import HS256, public_jwk, read_private_key

AUDIENCE = "muster"
SKEW = timedelta(seconds=60)
ACCESS_TOKEN_TYPES = ("at+jwt", "application/at+jwt")  # RFC 9068 section 4
_HEAD = struct.Struct(">BB16sI")
_VERSION = 1
_SIGNED_TOKEN = re.compile(r"[A-Za-z0-9_-]{72}", re.ASCII)
_MAX_JWT_LENGTH = 4096
_TAG = 12


def derive_keys(secret_keys: Sequence[str], use: str) -> list[bytes]:
    """One 32-byte key for each of SECRET_KEYS, newest first; `use` is the HKDF label."""
    return [
        HKDF(SHA256(), length=32, salt=None, info=f"muster/{use}".encode()).derive(secret.encode())
        for secret in secret_keys
    ]


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A parsed token whose MAC is still to be checked: `number` is a generation or a time of expiry."""

    id: UUID
    number: int
    key_id: int
    head: bytes
    mac: bytes


def parse_signed(text: str) -> SignedToken | None:
    """Strict: 72 characters of the base64url alphabet (RFC 4648 section 5), no padding; else None."""
    if not _SIGNED_TOKEN.fullmatch(text):
        return None
    raw = urlsafe_b64decode(text)
    version, key_id, row_id, number = _HEAD.unpack_from(raw)
    if version != _VERSION:
        return None
    return SignedToken(UUID(bytes=row_id), number, key_id, raw[: _HEAD.size], raw[_HEAD.size :])


class TokenSigner:
    """Derives the opaque tokens of one use: base64url(version, key id, id, number, HMAC-SHA256(all that, bound)).

    `bound` is what the token hangs on and dies with, such as a row's random secret or a password hash. Nothing that
    is stored is a token, and any token can be derived again.
    """

    def __init__(self, secret_keys: Sequence[str], use: str) -> None:
        self._keys = [(hashlib.sha256(key).digest()[0], key) for key in derive_keys(secret_keys, use)]

    def sign(self, row_id: UUID, number: int, bound: bytes) -> str:
        key_id, key = self._keys[0]
        head = _HEAD.pack(_VERSION, key_id, row_id.bytes, number)
        return urlsafe_b64encode(head + _mac(key, head, bound)).decode()

    def verify(self, token: SignedToken, bound: bytes) -> bool:
        """In constant time for each key; keys that share an id are each tried."""
        candidates = [key for key_id, key in self._keys if key_id == token.key_id]
        return any(hmac.compare_digest(_mac(key, token.head, bound), token.mac) for key in candidates)


def _mac(key: bytes, head: bytes, bound: bytes) -> bytes:
    return hmac.digest(key, head + bound, "sha256")


class ValuesSigner:
    """Makes a few values opaque, and ours: the MAC keeps those of strangers out. `bound` says what they are for."""

    def __init__(self, secret_keys: Sequence[str], use: str) -> None:
        self._keys = derive_keys(secret_keys, use)

    def sign(self, values: Sequence[str], bound: str) -> str:
        payload = json.dumps(values).encode()
        return urlsafe_b64encode(self._tag(self._keys[0], payload, bound) + payload).decode().rstrip("=")

    def verify(self, signed: str, bound: str) -> list[str] | None:
        try:
            raw = urlsafe_b64decode(signed + "=" * (-len(signed) % 4))
        except ValueError:
            return None
        tag, payload = raw[:_TAG], raw[_TAG:]
        if not any(hmac.compare_digest(self._tag(key, payload, bound), tag) for key in self._keys):
            return None
        return [str(value) for value in json.loads(payload)]

    @staticmethod
    def _tag(key: bytes, payload: bytes, bound: str) -> bytes:
        return hmac.digest(key, bound.encode() + b"\0" + payload, "sha256")[:_TAG]


class InvalidAccessToken(Exception):
    """The JWT is not one of ours, or its time is over. Carries no reason: nobody is told."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """The claims of an access token (RFC 9068 section 2.2; `sid` and `gen` are ours). Times are whole seconds, UTC."""

    subject: UUID
    session_id: UUID
    generation: int
    client_id: str
    scope: frozenset[str]
    auth_time: int
    issued_at: int
    expires_at: int
    not_before: int
    token_id: str
    in_cookie: bool = False  # minted for a browser's cookie: it may be prolonged, a bearer token never


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of one algorithm alone, as python-jose parsed it once. What signs and what verifies may be the same."""

    id: str
    algorithm: str
    signs: Any
    verifies: Any
    public: dict[str, str] | None = None


def _own_key(key: bytes) -> _Key:
    parsed = jwk.construct(key, "HS256")
    return _Key(hashlib.sha256(key).hexdigest()[:16], "HS256", parsed, parsed)


def _shared_key(path: Path) -> _Key:
    key = read_private_key(path)
    public = public_jwk(key.public_key())
    return _Key(public["kid"], "RS256", jwk.construct(key, "RS256"), jwk.construct(key.public_key(), "RS256"), public)


class AccessTokenSigner:
    """Makes and verifies access tokens: JWT by the profile of RFC 9068, checked by the rules of RFC 8725.

    With key files tokens are RS256, so that others can verify them too; those of SECRET_KEYS hold all the same. A
    cookie's token is for us alone and lives long: it stays HS256, which no other service takes.
    """

    def __init__(self, secret_keys: Sequence[str], issuer: str, key_files: Sequence[Path] = ()) -> None:
        own = [_own_key(key) for key in derive_keys(secret_keys, "access")]
        keys = [key for file in (*key_files, HS256) for key in (own if file == HS256 else [_shared_key(file)])]
        self._keys = list({key.id: key for key in keys}.values())  # each once, whatever the list names twice
        self._own = own[0]
        self.public_jwks = [key.public for key in self._keys if key.public]
        self.issuer = issuer
        # Checking a signature costs more than all else here, and phones repeat a token for ten minutes.
        self._verified = lru_cache(maxsize=4096)(self._verify)

    def mint(self, claims: AccessClaims) -> str:
        key = self._own if claims.in_cookie else self._keys[0]
        payload = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": str(claims.subject),
            "sid": str(claims.session_id),
            "gen": claims.generation,
            "client_id": claims.client_id,
            "scope": " ".join(sorted(claims.scope)),
            "auth_time": claims.auth_time,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
            "jti": claims.token_id,
            **({"cookie": True} if claims.in_cookie else {}),
        }
        return str(jws.sign(payload, key.signs, headers={"typ": "at+jwt", "kid": key.id}, algorithm=key.algorithm))

    def verify(self, token: str, now: datetime | None) -> AccessClaims:
        """The claims, or InvalidAccessToken. `now=None` leaves time out (revocation takes expired tokens)."""
        if len(token) > _MAX_JWT_LENGTH:
            raise InvalidAccessToken
        claims = self._verified(token)
        if now is not None and not in_time(claims, now):
            raise InvalidAccessToken
        return claims

    def _verify(self, token: str) -> AccessClaims:
        try:
            if not is_canonical(token):
                raise InvalidAccessToken
            header = jws.get_unverified_header(token)
            key = next(key for key in self._keys if key.id == header.get("kid"))
            if header.get("alg") != key.algorithm or header.get("typ") not in ACCESS_TOKEN_TYPES or "crit" in header:
                raise InvalidAccessToken
            return self._claims(json.loads(jws.verify(token, key.verifies, [key.algorithm])), key)
        except (
            JOSEError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            StopIteration,
            RecursionError,
        ) as error:
            # Whatever a stranger put in there, python-jose's own surprises included, is one answer.
            raise InvalidAccessToken from error

    def _claims(self, payload: dict[str, Any], key: _Key) -> AccessClaims:
        if payload["iss"] != self.issuer or payload["aud"] != AUDIENCE:
            raise InvalidAccessToken
        if "cookie" in payload and key.algorithm != "HS256":
            raise InvalidAccessToken  # a stolen key file would give cookies, and prolonging them needs it no more
        if not isinstance(payload["jti"], str) or not isinstance(payload["client_id"], str):
            raise InvalidAccessToken
        return AccessClaims(
            subject=UUID(payload["sub"]),
            session_id=UUID(payload["sid"]),
            generation=whole(payload["gen"]),
            client_id=payload["client_id"],
            scope=frozenset(payload["scope"].split()),
            auth_time=whole(payload["auth_time"]),
            issued_at=whole(payload["iat"]),
            expires_at=whole(payload["exp"]),
            not_before=whole(payload.get("nbf", payload["iat"])),
            token_id=payload["jti"],
            in_cookie=payload.get("cookie") is True,
        )


def is_canonical(token: str) -> bool:
    """Base64url leaves bits of a last character unused: of the spellings of a token, only the one we made is ours."""
    return all(
        urlsafe_b64encode(urlsafe_b64decode(part + "=" * (-len(part) % 4))).rstrip(b"=") == part.encode()
        for part in token.split(".")
    )


def whole(value: object) -> int:
    if type(value) is not int:  # neither True nor 1.5 is a NumericDate of ours
        raise InvalidAccessToken
    return value


def in_time(claims: AccessClaims, now: datetime) -> bool:
    """RFC 7519 sections 4.1.4 to 4.1.6, with the skew of RFC 8725."""
    moment, skew = now.timestamp(), SKEW.total_seconds()
    started = moment + skew >= max(claims.not_before, claims.issued_at)
    return started and moment < claims.expires_at + skew


@dataclass(frozen=True, slots=True)
class Signers:
    """Every signer of a running application."""

    access: AccessTokenSigner
    refresh: TokenSigner
    reset: TokenSigner
    verification: TokenSigner
    email_change: TokenSigner
    cursor: ValuesSigner  # positions in lists
    sign_in: ValuesSigner  # what waits in a browser for the identity provider

    @classmethod
    def derive(cls, secret_keys: Sequence[str], issuer: str, key_files: Sequence[Path] = ()) -> "Signers":
        return cls(
            access=AccessTokenSigner(secret_keys, issuer, key_files),
            refresh=TokenSigner(secret_keys, "refresh"),
            reset=TokenSigner(secret_keys, "reset"),
            verification=TokenSigner(secret_keys, "verification"),
            email_change=TokenSigner(secret_keys, "email-change"),
            cursor=ValuesSigner(secret_keys, "cursor"),
            sign_in=ValuesSigner(secret_keys, "sign-in"),
        )


def new_secret() -> bytes:
    """32 random bytes for a new refresh_token row."""
    return secrets.token_bytes(32)


def new_token_id() -> str:
    return secrets.token_urlsafe(12)


def from_timestamp(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

"""The server's keys, and the signed tokens, signed values and JWKs made with them.

The HMAC keys are derived from SECRET_KEYS by HKDF (RFC 5869), one for each purpose, so that a token made for one
purpose is never valid for another.
"""

import hashlib
import hmac
import json
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def derive_keys(secret_keys: Sequence[str], use: str) -> list[bytes]:
    """One 32-byte key for each of SECRET_KEYS, newest first; `use` is the HKDF label."""
    info = f"muster/{use}".encode()
    return [HKDF(SHA256(), length=32, salt=None, info=info).derive(secret.encode()) for secret in secret_keys]


# ---- Opaque tokens: refresh tokens, and the links in mails ----

_SIGNED_TOKEN = re.compile(r"[A-Za-z0-9_-]{72}", re.ASCII)
_VERSION = 1
_HEAD = struct.Struct(">BB16sI")  # version, key id, row id, number


class TokenSigner:
    """Derives the opaque tokens for one purpose: base64url(head, HMAC-SHA256(head, binding)).

    The binding, such as a row's random secret or a password hash, is not in the token: the token is valid only while
    the binding is unchanged. No token is stored, and each can be derived again.
    """

    def __init__(self, secret_keys: Sequence[str], use: str) -> None:
        self._keys = [(hashlib.sha256(key).digest()[0], key) for key in derive_keys(secret_keys, use)]

    def sign(self, row_id: UUID, number: int, binding: bytes) -> str:
        key_id, key = self._keys[0]
        head = _HEAD.pack(_VERSION, key_id, row_id.bytes, number)
        return base64url(head + _mac(key, head, binding))

    def verify(self, token: "SignedToken", binding: bytes) -> bool:
        """Whether one of the keys with the token's key id signed it; compared in constant time."""
        candidates = [key for key_id, key in self._keys if key_id == token.key_id]
        return any(hmac.compare_digest(_mac(key, token.head, binding), token.mac) for key in candidates)


class SignedToken(NamedTuple):
    """A parsed token whose MAC is not verified yet. `number` is a generation or the time when the token expires."""

    id: UUID
    number: int
    key_id: int
    head: bytes
    mac: bytes


def parse_signed(text: str) -> SignedToken | None:
    """Parse a token: 72 characters of the base64url alphabet without padding; None for anything else."""
    if not _SIGNED_TOKEN.fullmatch(text):
        return None
    raw = from_base64url(text)
    version, key_id, row_id, number = _HEAD.unpack_from(raw)
    if version != _VERSION:
        return None
    return SignedToken(UUID(bytes=row_id), number, key_id, raw[: _HEAD.size], raw[_HEAD.size :])


def _mac(key: bytes, head: bytes, binding: bytes) -> bytes:
    return hmac.digest(key, head + binding, "sha256")


# ---- Signed values: cursors, and logins in progress ----

_TAG_SIZE = 12  # bytes


class ValueSigner:
    """Signs JSON values that come back from clients. `purpose` is signed too: a value is valid for one purpose only."""

    def __init__(self, secret_keys: Sequence[str], use: str) -> None:
        self._keys = derive_keys(secret_keys, use)

    def sign(self, value: Any, purpose: str) -> str:
        payload = json.dumps(value).encode()
        return base64url(_tag(self._keys[0], payload, purpose) + payload)

    def verify(self, signed: str, purpose: str) -> Any:
        """The value, or None if it was not signed here for this purpose."""
        try:
            raw = from_base64url(signed)
        except ValueError:
            return None
        tag, payload = raw[:_TAG_SIZE], raw[_TAG_SIZE:]
        if not any(hmac.compare_digest(_tag(key, payload, purpose), tag) for key in self._keys):
            return None
        return json.loads(payload)


def _tag(key: bytes, payload: bytes, purpose: str) -> bytes:
    return hmac.digest(key, purpose.encode() + b"\0" + payload, "sha256")[:_TAG_SIZE]


# ---- RSA keys: read from PEM files, published as JWKs ----

# An entry of JWT_PRIVATE_KEY_FILES that stands for SECRET_KEYS. While it comes first, the files behind it are
# published but do not sign yet.
HS256 = Path("HS256")
# Seconds that clients may cache the published keys: a new key is published this long before it signs.
JWKS_MAX_AGE = 300
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3


def read_private_key(path: Path) -> RSAPrivateKey:
    """The RSA key in an unencrypted PEM file; else ValueError.

    The message never quotes the file, and names the path only if a file is there: otherwise it may be a pasted key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ValueError(f"cannot read one of the files: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"the file {path} must contain a private key in PEM format without a passphrase") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_RSA_BITS:
        raise ValueError(f"the file {path} must contain an RSA key of at least {MIN_RSA_BITS} bits")
    return key


def public_jwk(key: RSAPublicKey) -> dict[str, str]:
    """The JWK (RFC 7517) of an RS256 key. Its `kid` is the key's thumbprint (RFC 7638), the same on every machine."""
    numbers = key.public_numbers()
    required = {"e": _base64url_uint(numbers.e), "kty": "RSA", "n": _base64url_uint(numbers.n)}
    thumbprint = hashlib.sha256(json.dumps(required, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**required, "use": "sig", "alg": "RS256", "kid": base64url(thumbprint)}


def _base64url_uint(number: int) -> str:
    """An integer as Base64urlUInt (RFC 7518 section 2)."""
    return base64url(number.to_bytes((number.bit_length() + 7) // 8))


# ---- Base64url without padding: RFC 7515 section 2 ----


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def sha256_base64url(text: str, length: int = 32) -> str:
    """The first `length` bytes of a text's SHA-256."""
    return base64url(hashlib.sha256(text.encode()).digest()[:length])


def from_base64url(text: str) -> bytes:
    """Decode, or raise ValueError. Only the spelling that `base64url` produces is accepted: the unused bits of the last
    character would allow others."""
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise ValueError("not in base64url")
    return data

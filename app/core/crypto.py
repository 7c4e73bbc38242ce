"""Server keys, and what is made from them by HMAC: opaque tokens that no row holds, values that come back unchanged.

The keys are derived from SECRET_KEYS by HKDF (RFC 5869), one for each use: a token of one use is noise to another.
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
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KEYS_MAX_AGE = 300  # seconds that others may keep what we publish: a new key is known so long before it signs
MIN_BITS = 2048  # RFC 7518 section 3.3
# Stands among the files for SECRET_KEYS: at the front, new files are known before any of them signs.
HS256 = Path("HS256")
_HEAD = struct.Struct(">BB16sI")
_VERSION = 1
_SIGNED_TOKEN = re.compile(r"[A-Za-z0-9_-]{72}", re.ASCII)
_TAG = 12  # bytes


def new_secret() -> bytes:
    """32 random bytes for a new refresh_token row."""
    return secrets.token_bytes(32)


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
    raw = from_base64url(text)
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
        return base64url(head + _mac(key, head, bound))

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
        return base64url(self._tag(self._keys[0], payload, bound) + payload)

    def verify(self, signed: str, bound: str) -> list[str] | None:
        try:
            raw = from_base64url(signed)
        except ValueError:
            return None
        tag, payload = raw[:_TAG], raw[_TAG:]
        if not any(hmac.compare_digest(self._tag(key, payload, bound), tag) for key in self._keys):
            return None
        return [str(value) for value in json.loads(payload)]

    @staticmethod
    def _tag(key: bytes, payload: bytes, bound: str) -> bytes:
        return hmac.digest(key, bound.encode() + b"\0" + payload, "sha256")[:_TAG]


# ---- RSA keys: read from PEM files, published as JWK ----


def read_private_key(path: Path) -> RSAPrivateKey:
    """The key in a PEM file that is not encrypted; else a ValueError, whose sentence repeats nothing of the file, nor
    a name that is no file's: it may be a key that was pasted there."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ValueError(f"a file of the list cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"the file {path} holds no private key in PEM without a passphrase") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_BITS:
        raise ValueError(f"the file {path} has to hold an RSA key of at least {MIN_BITS} bits")
    return key


def public_jwk(key: RSAPublicKey) -> dict[str, str]:
    """RFC 7517 section 4, for RS256. The kid is the thumbprint of RFC 7638: it names this key on every machine."""
    numbers = key.public_numbers()
    needed = {"e": _whole(numbers.e), "kty": "RSA", "n": _whole(numbers.n)}
    thumbprint = hashlib.sha256(json.dumps(needed, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**needed, "use": "sig", "alg": "RS256", "kid": base64url(thumbprint)}


def _whole(number: int) -> str:
    """Base64urlUInt of RFC 7518 section 2."""
    return base64url(number.to_bytes((number.bit_length() + 7) // 8))


def base64url(data: bytes) -> str:
    """RFC 7515 section 2: the alphabet of RFC 4648 section 5, no padding."""
    return urlsafe_b64encode(data).decode().rstrip("=")


def from_base64url(text: str) -> bytes:
    """The bytes; else ValueError. A last character has bits to spare: of the spellings, only base64url's is taken."""
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise ValueError("not in base64url")
    return data

"""Server keys, and what is made from them by HMAC: opaque tokens that no row holds, values that come back unchanged.

The keys are derived from SECRET_KEYS by HKDF (RFC 5869), one for each use: a token of one use is noise to another.
"""

import hashlib
import hmac
import json
import re
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.core.keys import base64url, from_base64url

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

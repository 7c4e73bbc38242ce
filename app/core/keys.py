"""The RSA keys that access tokens are signed with for other services: read from PEM files, published as JWK.

Base64url, which JOSE and our opaque tokens are written in, is here too.
"""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KEYS_MAX_AGE = 300  # seconds that others may keep what we publish: a new key is known so long before it signs
MIN_BITS = 2048  # RFC 7518 section 3.3
# Stands among the files for SECRET_KEYS: at the front, new files are known before any of them signs.
HS256 = Path("HS256")


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

"""The RSA keys that access tokens are signed with for other services: read from PEM files, published as JWK."""

import hashlib
import json
from base64 import urlsafe_b64encode
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KEYS_MAX_AGE = 300  # seconds that others may keep what we publish: a new key is known so long before it signs
MIN_BITS = 2048  # RFC 7518 section 3.3
HS256 = Path(
    "HS256"
)  # stands among the files for SECRET_KEYS: at the front, new files are known before any of them signs


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
    needed = {"e": _base64url(numbers.e), "kty": "RSA", "n": _base64url(numbers.n)}
    thumbprint = hashlib.sha256(json.dumps(needed, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**needed, "use": "sig", "alg": "RS256", "kid": urlsafe_b64encode(thumbprint).decode().rstrip("=")}


def _base64url(number: int) -> str:
    return urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode().rstrip("=")

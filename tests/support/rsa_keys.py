"""RSA keys for tests, made once each: PEM files as JWT_PRIVATE_KEY_FILES takes them."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:  # noqa: ARG001  # another name is another key
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_file(folder: Path, name: str) -> Path:
    path = Path(mkdtemp(dir=folder)) / f"{name}.pem"  # another worker's key of this name is another key
    path.write_bytes(pem(rsa_key(name)))
    return path

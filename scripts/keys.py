"""Create keys, and print the steps that rotate to them without signing anybody out, as ./scripts/keys does.

It changes no setting itself: the settings of all processes have to change together, which only their operator can do.
"""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import os
import secrets
import sys
from argparse import SUPPRESS
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.core.crypto import HS256, JWKS_MAX_AGE, derive_keys, public_jwk, read_private_key
from app.core.settings import DATA, Settings, get_settings
from app.oauth2.access_tokens import SKEW
from app.oauth2.jwts import hmac_key

BITS = 3072  # NIST SP 800-57 part 1, table 4: 128 bits of strength, good beyond 2030


def main() -> None:
    parser = Parser(prog="./scripts/keys", description=__doc__)
    parser.add_argument("--from-folder", type=Path, default=Path(), help=SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | secret | pem")
    commands.add_parser("list", help="the keys in use, and which one signs")
    commands.add_parser("secret", help="a new secret for SECRET_KEYS")
    pem = commands.add_parser("pem", help="a new RSA key for JWT_PRIVATE_KEY_FILES, in a file")
    pem.add_argument("file", type=Path, nargs="?", metavar="FILE", help="in data/keys unless given")
    options = parser.parse_args()
    match options.command:
        case "list":
            list_keys(get_settings())
        case "secret":
            create_secret()
        case "pem":
            file = options.from_folder / options.file if options.file else default_file()
            create_pem(get_settings(), file.resolve())


def list_keys(settings: Settings) -> None:
    """Print the names of the keys, as `kid` in a token gives them, and never a key."""
    for number, secret in enumerate(settings.secret_keys):
        role = "signs refresh tokens, mailed links and cookies" if number == 0 else "verifies"
        print(f"SECRET_KEYS: kid {secret_id(secret)}, {role}")
    files = settings.jwt_private_key_files
    for number, file in enumerate(files or (HS256,)):
        role = "signs access tokens" if number == 0 else "verifies"
        print(f"{file}: {role}" if file == HS256 else f"{file}: RS256, kid {key_id(file)}, {role}")


def secret_id(secret: str) -> str:
    return str(hmac_key(derive_keys([secret], "access")[0]).id)


def key_id(file: Path) -> str:
    return public_jwk(read_private_key(file).public_key())["kid"]


# ---- Secrets ----


def create_secret() -> None:
    """Print a new secret and the steps to it; without the steps it would sign everybody out.

    With wrong settings it prints what is wrong instead, except where production still lacks its first secret.
    """
    new = secrets.token_urlsafe(48)
    introduction = f"A new secret, kid {secret_id(new)}, shown this once: {new}"
    try:
        settings = get_settings()
    except SystemExit as refusal:
        if "SECRET_KEYS: production needs" not in str(refusal):
            raise
        print(f"{introduction}\nSECRET_KEYS={new}")
        return
    print(introduction)
    # A refresh extends the idle limit, and its response may be lost: the phone then sends its old token once more.
    lifetime = min(2 * settings.refresh_idle_ttl, settings.refresh_absolute_ttl)
    print_steps(
        f"SECRET_KEYS=OLD,{new}",
        f"SECRET_KEYS={new},OLD",
        f"after {in_words(lifetime)} (twice REFRESH_IDLE_TTL: every token signed with the old secret has expired):"
        f" SECRET_KEYS={new}",
    )
    print("OLD is the current value, or the content of data/secret.key if SECRET_KEYS is not set.")
    print("If a secret has leaked, remove it at once instead. Everybody has to sign in again.")


# ---- RSA keys ----


def default_file() -> Path:
    folder = DATA / "keys"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"muster: {folder}: {error.strerror}")
    return folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.pem"


def create_pem(settings: Settings, file: Path) -> None:
    """Write the file whole or not at all, readable by its owner alone, and never over another file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        try:
            draft.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            os.link(draft, file)
        finally:
            draft.unlink()
    except OSError as error:
        sys.exit(f"muster: {file}: {error.strerror}")
    print(f"Written: {file}, RSA {BITS} bits, kid {key_id(file)}. Copy it to every machine; only Muster may read it.")
    old = settings.jwt_private_key_files or (HS256,)
    present = ",".join(map(str, old))
    overlap = settings.access_token_ttl + SKEW
    print_steps(
        f"JWT_PRIVATE_KEY_FILES={present},{file}",
        f"after {in_words(timedelta(seconds=JWKS_MAX_AGE))} (other services cache the published keys that long):"
        f" JWT_PRIVATE_KEY_FILES={file},{present}",
        f"after {in_words(overlap)} (ACCESS_TOKEN_TTL and a minute of clock skew): JWT_PRIVATE_KEY_FILES={file}",
    )
    print("If a key file has leaked, remove it at once instead. Access tokens are rejected, and phones refresh them.")


def in_words(duration: timedelta) -> str:
    """In the largest unit of which it is a whole number."""
    for unit, length in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        if not duration % length:
            return f"{duration // length} {unit}{'s' * (duration > length)}"
    return f"{duration.total_seconds():g} seconds"


def print_steps(*steps: str) -> None:
    print("Nobody is signed out if each step reaches every process before the next one begins:")
    for number, step in enumerate(steps, 1):
        print(f"  {number}. {step}")


if __name__ == "__main__":
    main()

"""What ./scripts/keys runs: new keys, and the steps in which they replace the old ones while tokens live on.

It changes no setting by itself: those of all processes have to change together, and only their operator reaches all.
"""

import argparse
import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.core.crypto import HS256, KEYS_MAX_AGE, public_jwk, read_private_key
from app.core.settings import DATA, Settings, get_settings
from app.oauth2.access_tokens import SKEW

BITS = 3072  # NIST SP 800-57 part 1, table 4: 128 bits of strength, good beyond 2030


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/keys", description="Make keys, and rotate to them.")
    parser.add_argument("--from-folder", type=Path, default=Path(), help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the keys of the settings, and which one signs")
    commands.add_parser("secret", help="a new secret for SECRET_KEYS")
    pem = commands.add_parser("pem", help="a new RSA key for JWT_PRIVATE_KEY_FILES, in a file")
    pem.add_argument("file", type=Path, nargs="?", help="default: in data/keys")
    arguments = parser.parse_args()
    match arguments.command:
        case "list":
            list_keys(get_settings())
        case "secret":
            new_secret()
        case "pem":
            file = arguments.from_folder / arguments.file if arguments.file else default_file()
            new_pem(get_settings(), file.resolve())


def list_keys(settings: Settings) -> None:
    """Names of keys, never a key: what `kid` says in the tokens."""
    print(f"SECRET_KEYS: {len(settings.secret_keys)}, the first signs (refresh tokens, mailed links, cookies)")
    files = settings.jwt_private_key_files
    for number, file in enumerate(files or (HS256,)):
        role = "signs access tokens" if number == 0 else "is known"
        print(f"{file}: {role}" if file == HS256 else f"{file}: RS256, kid {kid_of(file)}, {role}")


def kid_of(file: Path) -> str:
    return public_jwk(read_private_key(file).public_key())["kid"]


# ---- Secrets ----


def new_secret() -> None:
    """The steps to it, or what is wrong with the settings: to bring it in without them would sign everybody out."""
    new = secrets.token_urlsafe(48)
    introduction = f"A new secret, shown this once: {new}"
    try:
        settings = get_settings()
    except SystemExit as refusal:
        if "SECRET_KEYS: production needs" not in str(refusal):
            raise
        print(f"{introduction}\nSECRET_KEYS={new}")
        return
    print(introduction)
    # A refresh moves the idle limit, and its answer may be lost: the phone then comes with its old token once more.
    life = min(2 * settings.refresh_idle_ttl, settings.refresh_absolute_ttl)
    print_steps(
        f"SECRET_KEYS=OLD,{new}",
        f"SECRET_KEYS={new},OLD",
        f"after {in_words(life)} (twice REFRESH_IDLE_TTL: the last token by the old one has ended): SECRET_KEYS={new}",
    )
    print("OLD is what is there now; without the setting, the content of data/secret.key.")
    print("A secret that leaked: take it out at once instead. Everybody signs in again.")


# ---- RSA keys ----


def default_file() -> Path:
    folder = DATA / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.pem"


def new_pem(settings: Settings, file: Path) -> None:
    """The file is there as a whole or not at all, and its owner's alone."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        try:
            draft.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            os.link(draft, file)  # never over another
        finally:
            draft.unlink()
    except OSError as error:
        sys.exit(f"muster: {file}: {error.strerror}")
    print(f"Written: {file}, RSA {BITS} bits, kid {kid_of(file)}. Bring it to every machine, for the service alone.")
    old = settings.jwt_private_key_files or (HS256,)
    now = ",".join(map(str, old))
    overlap = settings.access_token_ttl + SKEW
    print_steps(
        f"JWT_PRIVATE_KEY_FILES={now},{file}",
        f"after {KEYS_MAX_AGE} s (others keep the published keys for so long): JWT_PRIVATE_KEY_FILES={file},{now}",
        f"after {in_words(overlap)} (ACCESS_TOKEN_TTL and a minute of skew): JWT_PRIVATE_KEY_FILES={file}",
    )
    print("A key file that leaked: take it out at once instead. Access tokens end, phones refresh by themselves.")


def in_words(duration: timedelta) -> str:
    return str(duration).removesuffix(", 0:00:00")


def print_steps(*steps: str) -> None:
    print("Nobody is signed out when every process has each step before the next one begins:")
    for number, step in enumerate(steps, 1):
        print(f"  {number}. {step}")


if __name__ == "__main__":
    main()

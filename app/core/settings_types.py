"""The types of settings. No message repeats the value, which may be a secret or contain one."""

import re
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_settings import NoDecode

from app.core.crypto import HS256, read_private_key

ROOT = Path(__file__).resolve().parents[2]
TLS_MODES = {"starttls", "implicit", "none"}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def _comma_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _duration(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Seconds or ISO 8601."""
    try:
        return validate(float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value)
    except ValueError:
        raise ValueError("must be a duration above 0, in seconds (30) or ISO 8601 (PT30S)") from None


def _limit(value: str) -> str:
    try:
        parse_many(value)
    except ValueError:
        raise ValueError("must be a rate limit such as 20/minute, 10/5minute or 100/hour;10/minute") from None
    return value


def _network(value: str) -> str:
    try:
        ip_network(value)
    except ValueError:
        raise ValueError("must be a comma-separated list of addresses and networks such as 10.0.0.0/8") from None
    return value


def _database_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if scheme in {"postgres", "postgresql", "postgresql+psycopg"} and separator and _has_valid_port(value):
        return f"postgresql+psycopg://{rest}"
    if scheme == "sqlite" and rest.startswith("/") and rest[1:]:
        return f"sqlite:///{ROOT / rest[1:]}"  # an absolute path on the right wins over ROOT
    raise ValueError("must be sqlite:///path/to/file.db or postgresql://user:password@host/database")


def _redis_url(value: str) -> str:
    if value.startswith(("redis://", "rediss://")):
        return value
    raise ValueError("must be redis://host:port/0, or rediss:// with TLS")


def _key_file(value: Path) -> Path:
    if value == HS256:
        return value
    path = ROOT / value
    read_private_key(path)
    return path


def _mail_url(value: str) -> str:
    parts = urlsplit(value)
    tls = parse_qs(parts.query).get("tls", ["starttls"])[0]
    if value == "outbox" or (parts.scheme in {"outbox", "smtp"} and tls in TLS_MODES and _has_valid_port(value)):
        return value
    raise ValueError(
        "must be outbox, outbox:///a/folder or smtp://user:password@host:port?tls=starttls (or implicit, or none)"
    )


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    is_http = parts.scheme in {"http", "https"} and parts.hostname and _has_valid_port(value)
    if is_http and not parts.query + parts.fragment:
        return value.rstrip("/")
    raise ValueError("must be an http:// or https:// URL without a query")


def _issuer(value: str) -> str:
    _http_url(value)
    return value  # compared exactly, so a final slash stays


def _role_pair(value: object) -> object:
    """`realm-role=role`. Only the last equals sign separates: realm roles may contain others."""
    realm_role, _, role = str(value).rpartition("=")
    if not realm_role.strip() or not role.strip():
        raise ValueError(
            "must be a comma-separated list such as muster-admin=admin,muster-user=user, the most powerful role first"
        )
    return realm_role.strip(), role.strip()


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme in {"http", "https"} and _has_valid_port(value) and value == f"{parts.scheme}://{parts.netloc}":
        return value
    raise ValueError("must be a comma-separated list of origins such as https://app.example.com")


def _has_valid_port(url: str) -> bool:
    """Whether the port, if there is one, is a number from 1 to 65535: urlsplit checks it only when asked for it."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _secrets(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if not value and info.data.get("environment") != "production":  # settings.py has a better message for production
        raise ValueError("must be a comma-separated list of secrets, newest first")
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]
Secrets = Annotated[Names, AfterValidator(_secrets)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_comma_list)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_comma_list)]
KeyFiles = Annotated[tuple[Annotated[Path, AfterValidator(_key_file)], ...], NoDecode, BeforeValidator(_comma_list)]
RoleMap = Annotated[
    tuple[Annotated[tuple[str, str], BeforeValidator(_role_pair)], ...], NoDecode, BeforeValidator(_comma_list)
]
Duration = Annotated[timedelta, Field(gt=timedelta(0)), WrapValidator(_duration)]
Limit = Annotated[str, AfterValidator(_limit)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Issuer = Annotated[str, Field(max_length=500), AfterValidator(_issuer)]
MailUrl = Annotated[str, AfterValidator(_mail_url)]

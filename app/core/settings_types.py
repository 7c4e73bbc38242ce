"""The types of settings, with their validation. Error messages never repeat a value: it may be a secret."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from email import errors, policy
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_settings import NoDecode

from app.core.crypto import HS256, read_private_key

ROOT = Path(__file__).resolve().parents[2]
_ID_TOKEN_CLAIMS = frozenset(("iss", "sub", "aud", "azp", "exp", "iat", "auth_time", "acr", "amr", "email", "groups"))
_CLIENT_VERSION = re.compile(r"([A-Za-z]{1,20})/([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}

# The options of redis-py that Celery's Redis client accepts too.
_SOCKET_OPTIONS = ("socket_connect_timeout", "socket_keepalive", "socket_timeout")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")
REDIS_OPTIONS = ("client_name", "health_check_interval", *_SOCKET_OPTIONS, *_TLS_OPTIONS)

Item = TypeVar("Item")
Parser = Callable[[str], str | None]


def _must_be(description: str) -> Callable[[Parser], AfterValidator]:
    """Turn a parser into a validator. The parser rejects a text by returning None or raising ValueError."""

    def decorate(parse: Parser) -> AfterValidator:
        def validate(text: str) -> str:
            with suppress(ValueError):
                if value := parse(text):
                    return value
            raise ValueError(f"must be {description}")

        return AfterValidator(validate)

    return decorate


@_must_be("sqlite:///path/to/file.db or postgresql://user:password@host/database")
def _database_url(text: str) -> str | None:
    scheme, separator, rest = text.partition("://")
    path, query, options = rest[1:].partition("?")
    if scheme == "sqlite" and rest.startswith("/") and path and not path.startswith((":memory:", "file:")):
        # An absolute path on the right wins over ROOT, whose name may have characters that a URL has to escape.
        return f"sqlite:///{quote(str(ROOT / unquote(path)), safe='/ ')}{query}{options}"
    is_postgres = scheme in {"postgres", "postgresql", "postgresql+psycopg"} and separator and urlsplit(text).port != 0
    return f"postgresql+psycopg://{rest}" if is_postgres else None


@_must_be(f"redis://host:port/0, or rediss:// for TLS, perhaps with options: {', '.join(REDIS_OPTIONS)}")
def _redis_url(text: str) -> str | None:
    if not text.startswith(("redis://", "rediss://")) or parse_qs(urlsplit(text).query).keys() - set(REDIS_OPTIONS):
        return None
    from redis import ConnectionPool, RedisError  # noqa: PLC0415  # importing it takes 0.1 s, which only Redis users need

    with suppress(TypeError, RedisError):  # a TLS option without TLS, or a meaningless value
        return text if ConnectionPool.from_url(text).make_connection() else None
    return None


def tls_mode(mail_url: SplitResult) -> str:
    return parse_qs(mail_url.query).get("tls", ["starttls"])[0]


@_must_be("outbox, outbox:///a/folder or smtp://user:password@host:port?tls=starttls (or implicit, or none)")
def _mail_url(text: str) -> str | None:
    url = urlsplit(text)
    has_tls_mode = tls_mode(url) in {"starttls", "implicit", "none"}
    is_url = url.scheme in {"outbox", "smtp"} and has_tls_mode and url.port != 0
    return text if is_url or text == "outbox" else None


@_must_be("a sender such as Muster <hello@example.com>")
def _sender(text: str) -> str | None:
    header = policy.default.header_factory("From", text)
    (address,) = header.addresses
    is_damaged = any(isinstance(defect, errors.InvalidHeaderDefect) for defect in header.defects)
    is_sender = address.domain and address.addr_spec.isascii() and text.isprintable() and not is_damaged
    return str(address) if is_sender else None


@_must_be("an http:// or https:// URL without a query")
def _http_url(text: str) -> str | None:
    url = urlsplit(text)
    is_url = url.scheme in {"http", "https"} and url.hostname and url.port != 0 and not url.query + url.fragment
    return text if is_url else None


@_must_be("an http:// or https:// URL without a path")
def _public_url(text: str) -> str | None:
    return None if urlsplit(text).path else text  # cookies, links and pages are at the root of the host


@_must_be("a comma-separated list of origins such as https://app.example.com")
def _origin(text: str) -> str | None:
    url = urlsplit(text)
    is_origin = url.scheme in {"http", "https"} and url.port != 0 and text == f"{url.scheme}://{url.netloc}"
    return text if is_origin else None


@_must_be("a comma-separated list of addresses and networks such as 10.0.0.0/8")
def _network(text: str) -> str | None:
    return text if ip_network(text) else None


@_must_be("a rate limit such as 20/minute, 10/5minute or 100/hour;10/minute")
def _limit(text: str) -> str | None:
    return text if parse_many(text) else None


@_must_be("a claim that access tokens have but ID tokens do not, such as scp or token_use=access")
def _token_mark(text: str) -> str | None:
    return text if text.partition("=")[0] not in _ID_TOKEN_CLAIMS else None


def _duration(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    try:
        written = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)", value) if isinstance(value, str) else None
        return validate(float(written[1]) * _SECONDS[written[2]] if written else value)
    except ValueError:
        raise ValueError("must be a duration above 0 such as 30s, 10m, 12h, 30d or PT30S") from None


def _comma_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _key_file(value: Path) -> Path:
    if value != HS256:
        value = ROOT / value
        read_private_key(value)
    return value


def _role_pair(value: object) -> tuple[str, str]:
    """Split at the last equals sign: names of realm roles may contain others."""
    realm_role, _, role = str(value).rpartition("=")
    if not realm_role.strip() or not role.strip():
        raise ValueError("must be a comma-separated list such as muster-admin=admin,muster-user=user, strongest first")
    return realm_role.strip(), role.strip()


def parse_client_version(value: object) -> tuple[str, str]:
    """The platform in lower case and the version, such as ("ios", "1.4.0"); else ValueError."""
    match = _CLIENT_VERSION.fullmatch(str(value))
    if match is None:
        raise ValueError("must be a comma-separated list of platforms and versions such as ios/1.4.0,android/2.1")
    return match[1].lower(), match[2]


DatabaseUrl = Annotated[str, _database_url]
RedisUrl = Annotated[str, _redis_url]
MailUrl = Annotated[str, _mail_url]
Sender = Annotated[str, _sender]
HttpUrl = Annotated[str, _http_url, AfterValidator(lambda url: url.rstrip("/"))]
PublicUrl = Annotated[HttpUrl, _public_url]
Issuer = Annotated[str, Field(max_length=500), _http_url]  # compared exactly, so a final slash stays
Limit = Annotated[str, _limit]
TokenMark = Annotated[str, _token_mark]
Duration = Annotated[timedelta, Field(gt=timedelta(0)), WrapValidator(_duration)]
CommaList = Annotated[tuple[Item, ...], NoDecode, BeforeValidator(_comma_list)]
Names = CommaList[str]
KeyFiles = CommaList[Annotated[Path, AfterValidator(_key_file)]]
Origins = CommaList[Annotated[str, _origin]]
Networks = CommaList[Annotated[str, _network]]
ClientVersions = CommaList[Annotated[tuple[str, str], BeforeValidator(parse_client_version)]]
RoleMap = CommaList[Annotated[tuple[str, str], BeforeValidator(_role_pair)]]

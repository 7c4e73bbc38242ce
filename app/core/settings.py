"""Settings, read once from the environment or .env. An invalid one stops the start with one line that names it."""

import os
import secrets
import sys
from contextlib import suppress
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url

from app.core import settings_types

ROOT = settings_types.ROOT
DATA = ROOT / "data"
SECRET_MIN_LENGTH = 32


def _development_secret(values: dict[str, Any]) -> tuple[str, ...]:
    """The secret in data/secret.key, created at the first start. Production must set SECRET_KEYS instead.

    Pydantic asks for a default only if every setting before it is valid.
    """
    if values["environment"] == "production":
        return ()
    DATA.mkdir(mode=0o700, exist_ok=True)
    path = DATA / "secret.key"
    if not path.exists():
        # Another process may be first.
        with NamedTemporaryFile("w", dir=DATA, prefix=".secret.") as draft, suppress(FileExistsError):
            draft.write(secrets.token_urlsafe(48))
            draft.flush()
            os.link(draft.name, path)  # atomic, and never replaces a file
    return (path.read_text().strip(),)


def _default_slots(values: dict[str, Any]) -> int:
    return 4 if values["database_url"].startswith("sqlite") else 16


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=ROOT / ".env",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    environment: Literal["development", "test", "production"] = "development"
    database_url: settings_types.DatabaseUrl = Field(default="sqlite:///data/muster.db", repr=False)
    redis_url: settings_types.RedisUrl | None = Field(default=None, repr=False)
    secret_keys: settings_types.Names = Field(default_factory=_development_secret, repr=False)
    jwt_private_key_files: settings_types.KeyFiles = ()

    access_token_ttl: settings_types.Duration = timedelta(minutes=10)
    refresh_idle_ttl: settings_types.Duration = timedelta(days=30)
    refresh_absolute_ttl: settings_types.Duration = timedelta(days=180)
    refresh_grace: settings_types.Duration = timedelta(seconds=30)
    password_min_length: int = Field(default=8, ge=8, le=64)

    limit_login_ip: settings_types.Limit = "20/minute"
    limit_login_account: settings_types.Limit = "10/5minute"
    limit_register: settings_types.Limit = "20/hour"
    limit_default: settings_types.Limit = "300/minute"
    limit_jobs: settings_types.Limit = "30/hour"
    limit_chat: settings_types.Limit = "60/minute"
    limit_introspect: settings_types.Limit = "6000/minute"
    trusted_proxies: settings_types.Networks = ()
    cors_origins: settings_types.Origins = ()
    min_client_versions: settings_types.ClientVersions = ()

    serves: Literal["app", "api", "web"] = "app"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    workers: int = Field(default=1, ge=1, le=256)
    keep_alive: settings_types.Duration = timedelta(seconds=65)
    public_url: settings_types.PublicUrl = Field(default_factory=lambda values: f"http://localhost:{values['port']}")
    api_url: settings_types.HttpUrl | None = None
    mail_url: settings_types.MailUrl = Field(default="outbox", repr=False)
    mail_from: settings_types.Sender = "Muster <muster@localhost>"

    oidc_issuer: settings_types.Issuer | None = None
    oidc_audience: str = "muster"
    oidc_audience_claim: Literal["aud", "client_id"] = "aud"
    oidc_token_mark: settings_types.TokenMark | None = None
    oidc_scope_claim: str = "scope"
    oidc_scope_prefix: str = ""
    oidc_client_id: settings_types.Names = ()
    oidc_client_secret: str | None = Field(default=None, repr=False)
    oidc_role_map: settings_types.RoleMap = ()
    local_accounts: Literal["on", "off"] = "on"
    password_grant: Literal["on", "off"] = "on"  # noqa: S105  # a switch

    db_slots: int = Field(default_factory=_default_slots, ge=1, le=1000)
    prepared_statements: Literal["on", "off"] = "on"
    slot_timeout: settings_types.Duration = timedelta(seconds=30)
    statement_timeout: settings_types.Duration = timedelta(seconds=10)
    max_body: int = Field(default=1024 * 1024, ge=1024)
    import_max_body: int = Field(default=16 * 1024 * 1024, ge=1024)
    body_timeout: settings_types.Duration = timedelta(seconds=20)

    metrics_token: str | None = Field(default=None, min_length=16, repr=False)
    admin_email: str | None = Field(default=None, repr=False)
    admin_password: str | None = Field(default=None, repr=False)

    @property
    def has_provider_login(self) -> bool:
        """Whether people can sign in to the pages at the identity provider."""
        return bool(self.oidc_issuer and self.oidc_client_id)

    @property
    def grant_types(self) -> list[str]:
        """The grant types of the token endpoint. Codes need pages where people can sign in."""
        by_password = self.local_accounts == "on" and self.password_grant == "on"  # noqa: S105  # a switch
        by_code = self.local_accounts == "on" or self.has_provider_login
        return ["authorization_code", "refresh_token"] * by_code + ["password"] * by_password

    @property
    def docs_grant(self) -> str | None:
        """The grant by which Swagger UI signs in: a code where our pages are at its origin, else the password."""
        grant = "password" if self.serves == "api" else "authorization_code"
        return grant if grant in self.grant_types else None

    @property
    def outbox(self) -> Path | None:
        """The folder that mail is written to; None if it is sent by SMTP."""
        url = urlsplit(self.mail_url)
        if url.scheme == "smtp":
            return None
        return Path(url.path) if url.path and url.scheme else DATA / "outbox"

    @property
    def has_mailbox(self) -> bool:
        """Whether the page /dev/mail shows the mails in the outbox."""
        return self.environment == "development" and self.outbox is not None

    @property
    def on_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite")

    @property
    def sqlite_file(self) -> Path:
        return Path(str(make_url(self.database_url).database))

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        if self.oidc_issuer == self.public_url:
            raise ValueError("OIDC_ISSUER: must differ from PUBLIC_URL, which is the issuer of our own tokens")
        if self.local_accounts == "off" and self.oidc_issuer is None:
            raise ValueError("OIDC_ISSUER: LOCAL_ACCOUNTS=off needs an identity provider where people sign in")
        insecure = [origin for origin in self.cors_origins if urlsplit(origin).scheme == "http"]
        if self.environment == "production" and any(urlsplit(origin).hostname != "localhost" for origin in insecure):
            raise ValueError("CORS_ORIGINS: production needs https:// origins, or http://localhost for mobile apps")
        return self

    @model_validator(mode="after")
    def _check_environment(self) -> Self:
        if self.environment != "production":
            if not self.secret_keys:
                raise ValueError("SECRET_KEYS: must be a comma-separated list of secrets, newest first")
            return self
        if not self.public_url.startswith("https://"):
            raise ValueError("PUBLIC_URL: production needs the https:// URL that clients use")
        if self.serves == "web":
            return self  # the pages alone sign no tokens, send no mail and have no rate limits
        if not self.secret_keys or any(len(key) < SECRET_MIN_LENGTH for key in self.secret_keys):
            raise ValueError(f"SECRET_KEYS: production needs secrets of at least {SECRET_MIN_LENGTH} characters each")
        if any(len(set(key)) < 10 for key in self.secret_keys):
            raise ValueError("SECRET_KEYS: production needs random secrets, not placeholders")
        if not self.mail_url.startswith("smtp:"):
            raise ValueError("MAIL_URL: production needs smtp://user:password@host:port?tls=starttls")
        if self.workers > 1 and self.redis_url is None:
            raise ValueError("REDIS_URL: production with WORKERS > 1 needs redis://host:port/0")
        if self.oidc_issuer and not self.oidc_issuer.startswith("https://"):
            raise ValueError("OIDC_ISSUER: production needs the https:// URL of the provider")
        return self


def describe(error: ValidationError) -> str:
    """The first error as one line that names the setting and what it must be, never its value."""
    first = error.errors(include_url=False, include_input=False)[0]
    reason = first["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("String should", "must")
    return f"muster: {str(first['loc'][0]).upper()}: {reason}" if first["loc"] else f"muster: {reason}"


def describe_path(error: OSError) -> str:
    """One line that names the file, or the folder where it could not be created: a draft's name says nothing."""
    path = Path(error.filename) if error.filename else None
    if path and not isinstance(error, FileNotFoundError) and not os.path.lexists(path):
        path = path.parent
    return f"muster: {path or 'a file'} cannot be used: {error.strerror}"


def _names_in(file: Path) -> set[str]:
    """The names in .env. A line that cannot be read stops the start, which would go on without its setting."""
    with file.open(encoding="utf-8-sig") as text:
        lines = list(parse_stream(text))
    if wrong := next((line.original.line for line in lines if line.error), None):
        sys.exit(f"muster: .env, line {wrong}: must be NAME=value, with both quotes or none")
    return {line.key for line in lines if line.key}


def _misspelled_name() -> tuple[str, str] | None:
    """The first name in .env or the environment that nearly matches a setting, and the name of that setting."""
    known = {name.upper() for name in Settings.model_fields}
    file = Path(str(Settings.model_config["env_file"]))
    written = {*os.environ, *(_names_in(file) if file.is_file() else ())}
    close = ((name, get_close_matches(name.upper(), known, 1, 0.9)) for name in sorted(written))
    return next(((name, found[0]) for name, found in close if found and name.upper() not in known), None)


@cache
def get_settings() -> Settings:
    try:
        if misspelled := _misspelled_name():
            sys.exit(f"muster: {misspelled[0]}: there is no such setting; did you mean {misspelled[1]}?")
        return Settings()
    except ValidationError as error:
        sys.exit(describe(error))
    except UnicodeDecodeError:
        sys.exit("muster: .env cannot be read: save it in UTF-8")
    except OSError as error:  # .env is not readable, or data/ not writable
        sys.exit(describe_path(error))

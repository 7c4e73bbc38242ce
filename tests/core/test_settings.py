"""Every setting is documented, and a wrong value is refused in one line. The development secret is made once."""

import os
import re
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from redis import Redis

from app.core.dialects import make_engine
from app.core.settings import Settings, get_settings
from app.jobs.backends import make_celery
from tests.support.databases import ROOT, SECRET_KEY
from tests.support.processes import fork_module
from tests.support.rsa_keys import pem, rsa_key

NAMES = sorted(name.upper() for name in Settings.model_fields)
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
ROWS = dict(re.findall(r"^\| `([A-Z][A-Z0-9_]*)` \| (.*?) \|", CONFIGURATION, re.MULTILINE))

PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEYS": SECRET_KEY,
    "MAIL_URL": "smtp://muster:sesame@mail.example.com:587",
    "PUBLIC_URL": "https://muster.example.com",
}


@pytest.fixture(autouse=True)
def _nothing_read_before() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def set_(monkeypatch: pytest.MonkeyPatch) -> Any:
    """set_(PORT="9000") gives the settings that a start with this environment has."""

    def read(**environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        return get_settings()

    return read


# ---- Documentation ----


def test_the_documentation_and_the_example_list_every_setting_and_nothing_else() -> None:
    assert sorted(ROWS) == NAMES
    assert sorted(re.findall(r"^# ([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE)) == NAMES
    assert [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")] == []


def test_the_documentation_gives_each_default_as_it_is(set_: Any) -> None:
    defaults = set_()
    for name, cell in ROWS.items():
        stated = re.fullmatch(r"`([^`]+)`", cell)
        if name != "PUBLIC_URL" and stated:  # it depends on another setting
            assert getattr(set_(**{name: stated[1]}), name.lower()) == getattr(defaults, name.lower()), name
        elif cell == "none":
            assert getattr(defaults, name.lower()) in {None, (), ""}, name


def test_the_example_can_be_used_as_it_is(set_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uncommented = tmp_path / ".env"
    uncommented.write_text(re.sub(r"^# (?=[A-Z0-9_]+=)", "", EXAMPLE, flags=re.MULTILINE))
    monkeypatch.setitem(Settings.model_config, "env_file", uncommented)
    settings = set_()
    assert settings.redis_url == "redis://localhost:6379/0"
    assert settings.public_url == "http://localhost:8000"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_that_is_not_utf_8_stops_the_start_with_one_line(
    set_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    (tmp_path / ".env").write_text("MAIL_FROM=Grüße <hello@example.com>\n", encoding)
    assert refusal(set_) == "muster: .env cannot be read: save it in UTF-8"


def test_a_line_that_cannot_be_read_stops_the_start_with_its_number(
    set_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    (tmp_path / ".env").write_text('# a comment\n\nPORT=9000\nSECRET_KEYS="sesame\nWORKERS=2\n')
    assert refusal(set_) == "muster: .env, line 4: must be NAME=value, with both quotes or none"
    (tmp_path / ".env").write_text("export PORT='9000' # a comment\nEMPTY=\nUNSET\n")
    assert set_().port == 9000


def test_a_name_that_is_almost_a_setting_stops_the_start_and_a_byte_order_mark_does_not(
    set_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    (tmp_path / ".env").write_text("PORT=9000\nworkers=2\nUNRELATED=1\n", "utf-8-sig")
    assert (set_().port, set_().workers) == (9000, 2)
    (tmp_path / ".env").write_text("LIMIT_LOGINS_IP=sesame\n")
    line = "muster: LIMIT_LOGINS_IP: there is no such setting; did you mean LIMIT_LOGIN_IP?"
    assert refusal(set_) == line
    (tmp_path / ".env").unlink()
    assert refusal(set_, LIMIT_LOGINS_IP="sesame") == line


# ---- Values ----


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30", timedelta(seconds=30)),
        ("0.5", timedelta(milliseconds=500)),
        ("PT30S", timedelta(seconds=30)),
        ("PT10M", timedelta(minutes=10)),
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("1.5 h", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
        ("P30D", timedelta(days=30)),
        ("P1DT12H", timedelta(hours=36)),
    ],
    ids=str,
)
def test_durations_are_seconds_or_iso_8601(set_: Any, text: str, duration: timedelta) -> None:
    assert set_(REFRESH_GRACE=text).refresh_grace == duration


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgres://ada:pw@db/muster", "postgresql+psycopg://ada:pw@db/muster"),
        (
            "postgresql://ada:pw@db:5432/muster?sslmode=require",
            "postgresql+psycopg://ada:pw@db:5432/muster?sslmode=require",
        ),
        ("postgresql+psycopg://db/muster", "postgresql+psycopg://db/muster"),
        ("postgresql://postgres:@/muster?host=/run/pg", "postgresql+psycopg://postgres:@/muster?host=/run/pg"),
        ("sqlite:///data/muster.db", f"sqlite:///{ROOT}/data/muster.db"),
        ("sqlite:////srv/muster.db", "sqlite:////srv/muster.db"),
        ("sqlite:////srv/100% ü?timeout=9", "sqlite:////srv/100%25 %C3%BC?timeout=9"),
    ],
    ids=lambda url: f"from {url}",  # an id that begins with a database's name says what a test ran on
)
def test_each_form_of_a_database_url_is_accepted(
    set_: Any, text: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative path is relative to the project, not to the caller
    settings = set_(DATABASE_URL=text)
    assert settings.database_url == url
    assert settings.on_sqlite == text.startswith("sqlite")
    assert settings.db_slots == (4 if settings.on_sqlite else 16)


@pytest.mark.parametrize("name", ["100%", "a%20b", "#1 of ü", "what?"])
def test_folders_may_have_any_name(set_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("app.core.settings_types.ROOT", tmp_path / name)
    settings = set_(DATABASE_URL="sqlite:///muster.db")
    assert settings.sqlite_file == tmp_path / name / "muster.db"
    settings.sqlite_file.parent.mkdir()
    engine = make_engine(settings)
    engine.connect().close()
    engine.dispose()  # from Python 3.13 on, an open connection that is collected is a warning
    assert settings.sqlite_file.is_file()


def test_a_postgresql_url_keeps_its_options(set_: Any, postgres: str) -> None:
    sign = "&" if "?" in postgres else "?"
    url = f"{postgres}{sign}application_name=ada&options=-c%20search_path%3Dapp"
    engine = make_engine(set_(DATABASE_URL=url, PREPARED_STATEMENTS="off"))
    shown = ("search_path", "application_name", "statement_timeout", "TimeZone")
    with engine.connect() as connection:
        found = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in shown]
        threshold = connection.connection.dbapi_connection.prepare_threshold  # type: ignore[union-attr]  # psycopg's
    engine.dispose()
    assert found == ["app", "ada", "10s", "UTC"]
    assert threshold is None


def test_every_client_of_redis_takes_the_options_of_its_url_and_verifies_certificates(set_: Any) -> None:
    url = "rediss://ada:pw@redis:6380/2?ssl_ca_certs=/ca.pem&socket_timeout=9"
    celery = make_celery(set_(REDIS_URL=url).redis_url)
    assert celery.conf.broker_url == "redis://ada:pw@redis:6380/2"
    assert celery.conf.broker_use_ssl == {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"}
    assert celery.conf.broker_transport_options["socket_timeout"] == 9
    assert Redis.from_url(url).connection_pool.make_connection().cert_reqs == ssl.CERT_REQUIRED  # type: ignore[attr-defined]
    assert not make_celery("redis://redis").conf.broker_use_ssl


def test_lists_are_separated_by_commas_and_empty_values_are_none(set_: Any) -> None:
    settings = set_(
        SECRET_KEYS=f"{SECRET_KEY}, older-{SECRET_KEY} ,",
        TRUSTED_PROXIES="10.0.0.0/8,::1",
        CORS_ORIGINS="https://app.example.com, http://localhost:5173",
        REDIS_URL="",
    )
    assert settings.secret_keys == (SECRET_KEY, f"older-{SECRET_KEY}")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.cors_origins == ("https://app.example.com", "http://localhost:5173")
    assert settings.redis_url is None


def test_the_public_url_follows_the_port_and_loses_its_last_slash(set_: Any) -> None:
    assert set_(PORT="9000").public_url == "http://localhost:9000"
    assert set_(PUBLIC_URL="https://muster.example.com/").public_url == "https://muster.example.com"


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ("hello@example.com", "hello@example.com"),
        ("Grüße <hello@example.com>", "Grüße <hello@example.com>"),
        ("Acme Inc. <hello@example.com>", '"Acme Inc." <hello@example.com>'),
        ('"Acme, Inc." <hello@example.com>', '"Acme, Inc." <hello@example.com>'),
    ],
)
def test_the_sender_of_mails_is_an_address_with_or_without_a_name(set_: Any, text: str, sender: str) -> None:
    assert set_(MAIL_FROM=text).mail_from == sender


def test_the_issuer_stays_as_it_is_written_and_roles_are_pairs_in_order(set_: Any) -> None:
    settings = set_(
        OIDC_ISSUER="https://id.example.com/", OIDC_ROLE_MAP="boss=admin, a=b=user", OIDC_CLIENT_ID="app,web"
    )
    assert settings.oidc_issuer == "https://id.example.com/"
    assert settings.oidc_role_map == (("boss", "admin"), ("a=b", "user"))
    assert settings.oidc_client_id == ("app", "web")


def test_the_representation_shows_no_secret(set_: Any) -> None:
    secrets = {
        "DATABASE_URL": "postgresql://ada:sesame@db/muster",
        "REDIS_URL": "redis://:sesame@redis/0",
        "SECRET_KEYS": "sesame" * 6,
        "MAIL_URL": "smtp://ada:sesame@mail",
        "ADMIN_PASSWORD": "sesame-street",
        "OIDC_CLIENT_SECRET": "sesame",
    }
    assert "sesame" not in repr(set_(**secrets))


# ---- Refusals ----


def refusal(set_: Any, **environment: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        set_(**environment)
    line = str(stopped.value.code)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "sesame"),
        ("DATABASE_URL", "mysql://ada:sesame@db/muster"),
        ("DATABASE_URL", "postgresql://ada:sesame@db:sesame/muster"),
        ("DATABASE_URL", "sqlite://sesame.db"),
        ("DATABASE_URL", "sqlite:///"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("REDIS_URL", "redis://:sesame@redis/0?foo=1"),
        ("REDIS_URL", "redis://:sesame@redis/0?ssl_cert_reqs=none"),
        ("REDIS_URL", "rediss://:sesame@redis/0?ssl_cert_reqs=sesame"),
        ("REDIS_URL", "redis://:sesame@redis/0?socket_timeout=sesame"),
        ("REDIS_URL", "http://:sesame@redis"),
        ("SECRET_KEYS", ","),
        ("JWT_PRIVATE_KEY_FILES", "/etc/sesame.pem"),
        ("JWT_PRIVATE_KEY_FILES", "sesame" * 100),
        ("ACCESS_TOKEN_TTL", "sesame"),
        ("ACCESS_TOKEN_TTL", "0"),
        ("REFRESH_IDLE_TTL", "-PT30S"),
        ("REFRESH_ABSOLUTE_TTL", "99999999999999999999"),
        ("REFRESH_GRACE", "3²"),
        ("PASSWORD_MIN_LENGTH", "7"),
        ("LOCAL_ACCOUNTS", "sesame"),
        ("LIMIT_LOGIN_IP", "sesame"),
        ("LIMIT_LOGIN_ACCOUNT", "10/5sesames"),
        ("LIMIT_REGISTER", "20"),
        ("LIMIT_DEFAULT", "/minute"),
        ("TRUSTED_PROXIES", "203.0.113.0/24,sesame"),
        ("TRUSTED_PROXIES", "203.0.113.1/8"),
        ("CORS_ORIGINS", "sesame.example.com"),
        ("CORS_ORIGINS", "https://sesame.example.com/path"),
        ("PORT", "sesame"),
        ("PORT", "65536"),
        ("PORT", "0"),
        ("WORKERS", "0"),
        ("PUBLIC_URL", "sesame.example.com"),
        ("PUBLIC_URL", "https://example.com:sesame"),
        ("PUBLIC_URL", "https://example.com/?sesame"),
        ("PUBLIC_URL", "https://example.com/sesame"),
        ("MAIL_URL", "imap://ada:sesame@mail"),
        ("MAIL_URL", "smtp://ada:sesame@mail:sesame"),
        ("MAIL_URL", "smtp://ada:sesame@mail?tls=startls"),
        ("MAIL_FROM", "sesame"),
        ("MAIL_FROM", "Sesame sesame@example.com"),
        ("MAIL_FROM", "Sesame <sesame@example.com"),
        ("MAIL_FROM", "Sesame, Inc. <sesame@example.com>"),
        ("MAIL_FROM", "Sesame <sésame@example.com>"),
        ("MAIL_FROM", "Muster <m@example.com>\nBcc: sesame@example.com"),
        ("OIDC_ISSUER", "sesame.example.com"),
        ("OIDC_ISSUER", "https://id.example.com/?sesame"),
        ("OIDC_ISSUER", "http://localhost:8000"),
        ("OIDC_ROLE_MAP", "sesame"),
        ("OIDC_ROLE_MAP", "muster-admin=admin,sesame="),
        ("DB_SLOTS", "0"),
        ("SLOT_TIMEOUT", "soon"),
        ("STATEMENT_TIMEOUT", "0"),
        ("MAX_BODY", "1"),
    ],
    ids=lambda each: each[:50],
)
def test_a_wrong_value_stops_the_start_with_one_line_that_names_the_setting_and_not_the_value(
    set_: Any, name: str, value: str
) -> None:
    line = refusal(set_, **{name: value})
    assert line.startswith(f"muster: {name}: ")
    assert len(line) > len(f"muster: {name}: ") + 10
    assert "sesame" not in line.lower()
    assert "203.0.113" not in line


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "key.pem"
    path.write_bytes(content)
    return path


def test_a_file_with_any_other_key_stops_the_start(set_: Any, tmp_path: Path) -> None:
    good = rsa_key("settings")
    encrypted = good.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame"))
    public = good.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    of_a_curve = ec.generate_private_key(ec.SECP256R1())
    for content in (b"", b"sesame", encrypted, public, pem(rsa_key("short", 1024)), pem(of_a_curve), pem(good)[:-60]):
        line = refusal(set_, JWT_PRIVATE_KEY_FILES=f"HS256,{_written(tmp_path, content)}")
        assert line.startswith(f"muster: JWT_PRIVATE_KEY_FILES: the file {tmp_path}/key.pem ")
    assert set_(JWT_PRIVATE_KEY_FILES=f"HS256,{_written(tmp_path, pem(good))}").jwt_private_key_files


UNFIT = {
    "no secret": ("SECRET_KEYS", {"SECRET_KEYS": ""}),
    "a short secret": ("SECRET_KEYS", {"SECRET_KEYS": "short-0123456789"}),
    "a second, short secret": ("SECRET_KEYS", {"SECRET_KEYS": f"{SECRET_KEY},short-0123456789"}),
    "a secret that repeats itself": ("SECRET_KEYS", {"SECRET_KEYS": "changemechangemechangemechangeme"}),
    "a second that does": ("SECRET_KEYS", {"SECRET_KEYS": f"{SECRET_KEY},changemechangemechangemechangeme"}),
    "an origin without TLS": ("CORS_ORIGINS", {"CORS_ORIGINS": "https://app.example.com,http://app.example.com"}),
    "no mail server": ("MAIL_URL", {"MAIL_URL": ""}),
    "mails in files": ("MAIL_URL", {"MAIL_URL": "outbox:///srv/outbox"}),
    "two processes without Redis": ("REDIS_URL", {"WORKERS": "2"}),
    "no address": ("PUBLIC_URL", {"PUBLIC_URL": ""}),
    "an address without TLS": ("PUBLIC_URL", {"PUBLIC_URL": "http://muster.example.com"}),
    "a provider without TLS": ("OIDC_ISSUER", {"OIDC_ISSUER": "http://id.example.com/realms/muster"}),
}


@pytest.mark.parametrize(("name", "change"), UNFIT.values(), ids=UNFIT)
def test_production_refuses_to_start_and_names_the_setting_to_fix(set_: Any, name: str, change: dict[str, str]) -> None:
    assert refusal(set_, **{**PRODUCTION, **change}).startswith(f"muster: {name}: production ")


def test_without_local_accounts_a_provider_is_required(set_: Any) -> None:
    assert refusal(set_, LOCAL_ACCOUNTS="off").startswith("muster: OIDC_ISSUER: LOCAL_ACCOUNTS=off needs ")
    assert set_(LOCAL_ACCOUNTS="off", OIDC_ISSUER="https://provider.example").local_accounts == "off"


def test_the_pages_alone_need_no_secret_in_production(set_: Any) -> None:
    pages = {"ENVIRONMENT": "production", "SERVES": "web", "PUBLIC_URL": PRODUCTION["PUBLIC_URL"], "SECRET_KEYS": ""}
    assert set_(**pages, WORKERS="2").secret_keys == ()
    assert refusal(set_, **{**pages, "PUBLIC_URL": ""}).startswith("muster: PUBLIC_URL: production ")


def test_production_starts_once_all_is_set(set_: Any) -> None:
    assert set_(**PRODUCTION).environment == "production"
    assert set_(**PRODUCTION, CORS_ORIGINS="http://localhost,https://app.example.com").cors_origins
    assert set_(**PRODUCTION, WORKERS="4", REDIS_URL="rediss://:pw@redis/0").workers == 4


@pytest.mark.slow
def test_a_refused_start_prints_one_line_and_nothing_else() -> None:
    environment = {**os.environ, "SECRET_KEYS": SECRET_KEY, "DATABASE_URL": "mysql://ada:sesame@db/muster"}
    done = fork_module("scripts.start", environment=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"muster: DATABASE_URL: [^\n]+\n", done.stderr)
    assert "sesame" not in done.stderr


# ---- The secret of a development folder ----

READ_SECRET = """
import sys
from pathlib import Path
from app.core import settings
settings.DATA = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(settings.get_settings().secret_keys[0])
"""


@pytest.mark.slow
def test_the_development_secret_is_private_and_the_same_for_processes_that_start_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = {**os.environ, "SECRET_KEYS": "", "ENVIRONMENT": "development"}
    command = [sys.executable, "-c", READ_SECRET, str(data)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        secrets = {process.communicate("\n")[0].strip() for process in processes}
    path = data / "secret.key"
    assert secrets == {path.read_text()}
    assert len(path.read_text()) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in data.iterdir()] == ["secret.key"]


def test_production_makes_no_secret_of_its_own(set_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.settings.DATA", tmp_path / "data")
    refusal(set_, **{**PRODUCTION, "SECRET_KEYS": ""})
    assert not (tmp_path / "data").exists()

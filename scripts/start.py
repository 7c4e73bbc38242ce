"""What ./scripts/serve runs: migrate, load the roles, say where things are, serve. One process, to start quickly."""

import atexit
import os
import resource
import shutil
import socket
import sys
from pathlib import Path

import uvicorn
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from app.core.database import SOCKET_CONNECTIONS
from app.core.settings import DATA, ROOT, Settings, get_settings
from scripts.seed import first_admin_from_settings, load_roles

MAX_FRAME = 32 * 1024  # bytes: a text of 4 KiB whose every byte is escaped has 24
GRACEFUL_SHUTDOWN = 10  # seconds for requests under way and open streams


def main() -> None:
    settings = get_settings()
    refuse_busy_port(settings)
    if settings.serves != "web":  # the pages alone have no database
        prepare(settings)
        settings = fit_connections(settings)
    share_metrics(settings)
    allow_many_connections()
    print(banner(settings), flush=True)
    uvicorn.run(
        f"app.main:{settings.serves}",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="app.http.uvicorn_protocols:Protocol",
        ws="app.http.uvicorn_protocols:SocketProtocol",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,  # messages are short, and each socket would keep two windows of 4 KiB and more
        proxy_headers=False,  # the application itself believes TRUSTED_PROXIES and nobody else
        server_header=False,
        access_log=False,  # ours has no query string in it
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN,
        log_level="warning",
    )


def allow_many_connections() -> None:
    """Each is an open file, and a shell's usual limit of 1,024 would turn away the next client."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def refuse_busy_port(settings: Settings) -> None:
    """Uvicorn would say so too, but after the migration and in several lines."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        sys.exit(f"muster: PORT: {settings.port} at HOST {settings.host} cannot be used: {error.strerror}")


def prepare(settings: Settings) -> None:
    """Bring the schema and the roles up to date; safe when several processes do it at once."""
    DATA.mkdir(exist_ok=True)
    try:
        if schema_revision(settings) != newest_revision():
            migrate(settings)
        load_roles(settings)
        first_admin_from_settings(settings)
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        sys.exit(f"muster: DATABASE_URL: the database cannot be used: {reason}")


def fit_connections(settings: Settings) -> Settings:
    """What all processes may hold together has to fit into PostgreSQL: a default DB_SLOTS is lowered, a set one that
    does not fit stops the start."""
    if settings.on_sqlite:
        return settings
    room = usable_connections(settings)
    most = (room // settings.workers - SOCKET_CONNECTIONS) // 2
    if settings.db_slots <= most:
        return settings
    needed = settings.workers * (2 * settings.db_slots + SOCKET_CONNECTIONS)
    why = f"WORKERS={settings.workers} would hold up to {needed} connections, and PostgreSQL has {room} for us"
    if "db_slots" in settings.model_fields_set or most < 1:
        sys.exit(f"muster: DB_SLOTS: {settings.db_slots} is too much: {why}. At most {max(most, 0)} fits")
    print(f"muster: DB_SLOTS: lowered from {settings.db_slots} to {most}: {why}", flush=True)
    os.environ["DB_SLOTS"] = str(most)
    get_settings.cache_clear()
    return get_settings()


def usable_connections(settings: Settings) -> int:
    """max_connections less those that PostgreSQL keeps for superusers and for pg_use_reserved_connections."""
    engine = create_engine(settings.database_url, poolclass=NullPool)
    reserved = "current_setting('superuser_reserved_connections')::int"
    newer = "coalesce(current_setting('reserved_connections', true)::int, 0)"  # since PostgreSQL 16
    with engine.connect() as connection:
        return int(
            connection.execute(
                text(f"SELECT current_setting('max_connections')::int - {reserved} - {newer}")
            ).scalar_one()
        )


def share_metrics(settings: Settings) -> None:
    """Several processes: an empty folder that they count in together, before one of them looks for it."""
    if settings.workers > 1:
        folder = DATA / f"metrics-{settings.port}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def newest_revision() -> str:
    """By file name, since names begin with the date. Importing Alembic to learn it would cost half a second a start."""
    newest = max((ROOT / "migrations" / "versions").glob("*.py"))
    return newest.name.partition("-")[2].partition("_")[0]


def schema_revision(settings: Settings) -> str | None:
    """The revision that the database is at; None when it is empty."""
    engine = create_engine(settings.database_url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except (OperationalError, ProgrammingError) as error:
        if "alembic_version" in str(error.orig):
            return None
        raise
    finally:
        engine.dispose()


def migrate(settings: Settings) -> None:
    from alembic import command  # noqa: PLC0415  # only a start that migrates pays for the import
    from alembic.config import Config  # noqa: PLC0415  # the same
    from alembic.util import CommandError  # noqa: PLC0415  # the same

    try:
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
    except CommandError:
        at = schema_revision(settings)
        sys.exit(f"muster: DATABASE_URL: the schema, revision {at}, is of another release than this one")


def banner(settings: Settings) -> str:
    url = settings.public_url
    data = _relative(settings.database_url.removeprefix("sqlite:///")) if settings.on_sqlite else "PostgreSQL"
    mail = "data/outbox" if settings.mail_url == "outbox" else settings.mail_url.partition("://")[0]
    jobs = "\nJobs        run by ./scripts/worker" if settings.redis_url else ""
    return f"Muster      {url}\nSwagger UI  {url}/api/docs\nData        {data}\nMail        {mail}{jobs}"


def _relative(path: str) -> str:
    return str(Path(path).relative_to(ROOT)) if Path(path).is_relative_to(ROOT) else path


if __name__ == "__main__":
    main()

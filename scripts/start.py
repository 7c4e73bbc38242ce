"""Start Muster, as ./scripts/serve does: migrate, load the roles, say where everything is, serve, and say goodbye."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import gc

# Before the other imports, which the garbage collector would walk again and again: a tenth of the start. At 1,000
# connections its default of 700 new objects made it walk the requests in progress: up to a fifth of the throughput.
gc.set_threshold(20_000, 20, 20)

import atexit
import errno
import logging
import os
import resource
import shutil
import socket
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from uvicorn.config import STARTUP_FAILURE
from uvicorn.importer import import_from_string
from uvicorn.supervisors import Multiprocess, multiprocess
from uvicorn.supervisors.statreload import StatReload

from app.core.database import OTHER_CONNECTIONS
from app.core.logs import configure_logging
from app.core.migrations import known_revisions, newest_revision, schema_revision
from app.core.settings import DATA, ROOT, Settings, get_settings
from scripts.demo import DEMO_ACCOUNT, load_demo, refuse_demo_account
from scripts.errors import database_name, explained_errors, relative
from scripts.seed import has_admin, load_roles, make_first_admin
from scripts.terminal import say

MAX_FRAME = 32 * 1024  # bytes; a text of 4 KiB takes 24 KiB when every byte of it is escaped
GRACEFUL_SHUTDOWN = 10  # seconds for requests in progress and open streams
PORTS_TO_TRY = 100  # above one that is taken

log = logging.getLogger("muster.start")


def main() -> None:
    options = parse()
    settings = get_settings()
    configure_logging(settings)
    if options.reload and settings.workers > 1:
        sys.exit("muster: WORKERS: --reload serves with one process; leave WORKERS at 1")
    if options.demo:
        refuse_demo_account(settings)
    if settings.serves == "web" and settings.api_url is None:
        import_from_string("app.main:web")  # says what is missing, and would do so after the banner
    refuse_taken_port(settings)
    if settings.serves != "web":  # the pages alone have no database
        prepare(settings, demo=options.demo)
        settings = fit_connections(settings)
    share_metrics(settings)
    allow_many_connections()
    say(settings, banner(settings, demo=options.demo, reload=options.reload))
    serve(settings, reload=options.reload)
    say(settings, goodbye(settings))


def parse() -> Namespace:
    parser = Parser(prog="./scripts/serve", description=__doc__)
    parser.add_argument("--demo", action="store_true", help="also load a demo account, and print its password")
    parser.add_argument("--reload", action="store_true", help="restart whenever code or text in app/ changes")
    return parser.parse_args()


def serve(settings: Settings, *, reload: bool) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    config = uvicorn.Config(
        f"app.main:{settings.serves}",
        workers=settings.workers,
        reload=reload,
        reload_dirs=[str(ROOT / "app")] if reload else None,
        http="app.http.uvicorn_protocols:HttpProtocol",
        ws="app.http.uvicorn_protocols:SocketProtocol",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,  # messages are short, and each socket would keep two windows of 4 KiB and more
        proxy_headers=False,  # the application itself trusts TRUSTED_PROXIES and nobody else
        server_header=False,
        access_log=False,  # the application writes its own, without query strings
        timeout_keep_alive=int(settings.keep_alive.total_seconds()),
        timeout_worker_healthcheck=60,  # a worker answers only once it has imported the application
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN,
        log_level="warning",
        log_config=None,  # it would replace that of configure_logging
    )
    server, sockets = uvicorn.Server(config), [bind(settings.host, settings.port)]
    if reload:
        Reloader(config, server.run, sockets).run()
    elif settings.workers > 1:
        vars(multiprocess)["Process"] = Worker
        supervisor = Supervisor(config, sockets)
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            sys.exit(STARTUP_FAILURE)
    else:
        config.load()
        with suppress(KeyboardInterrupt):
            server.run(sockets)
        if not server.started:
            sys.exit(STARTUP_FAILURE)


class Reloader(StatReload):
    """Restarts the server for texts too, which are read once. Templates are read again by themselves."""

    def iter_py_files(self) -> Iterator[Path]:
        yield from super().iter_py_files()
        yield from (ROOT / "app").rglob("*.toml")


class Worker(multiprocess.Process):
    """One of WORKERS, whose end is noticed at once, even while the supervisor waits for its first response."""

    def start(self) -> None:
        super().start()
        self.child_conn.close()  # the process has its own: without this one, its death ends the wait

    def join(self) -> None:
        """Wait for its end, whatever ended it, and remove its gauges."""
        super().join()
        mark_process_dead(self.pid)  # type: ignore[no-untyped-call]  # the library is only partly typed


class Supervisor(Multiprocess):
    def keep_subprocess_alive(self) -> None:
        """Start others for those that died, and say so: the system kills without a word what takes too much memory."""
        before = list(self.processes)
        super().keep_subprocess_alive()
        for process in before:
            if process not in self.processes:
                log.error("process %s ended with %s; starting a replacement", process.pid, process.exitcode)


# ---- Before the first request ----


def refuse_taken_port(settings: Settings) -> None:
    """Exit if the port is taken, and name the next free one. Uvicorn would exit later, after the migration."""
    try:
        bind(settings.host, settings.port).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            sys.exit(f"muster: PORT: {settings.port} at HOST {settings.host} cannot be used: {error.strerror}")
        free = next_free_port(settings)
        advice = f"; {free} is free: PORT={free} ./scripts/serve" if free else ""
        sys.exit(f"muster: PORT: {settings.port} is taken{advice}")


def next_free_port(settings: Settings) -> int | None:
    for port in range(settings.port + 1, min(settings.port + PORTS_TO_TRY, 65536)):
        try:
            bind(settings.host, port).close()
        except OSError:
            continue
        return port
    return None


def bind(host: str, port: int) -> socket.socket:
    """A socket at the address, or OSError. `::` is IPv4 as well, whatever the system's default is."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    bound.set_inheritable(True)
    return bound


def prepare(settings: Settings, *, demo: bool = False) -> None:
    """Migrate, and create missing roles, the first admin and demo data. Several processes may do so at once."""
    with explained_errors(settings):
        if settings.on_sqlite:
            DATA.mkdir(exist_ok=True)
        migrate(settings)
        load_roles(settings)
        make_first_admin(settings)
        if demo:
            load_demo(settings)


def migrate(settings: Settings) -> None:
    """Migrate unless the schema is up to date, which is quick to find out. The schema of a newer release is refused."""
    revision = schema_revision(settings)
    if revision == newest_revision():
        return
    if revision is not None and revision not in known_revisions():
        sys.exit(f"muster: DATABASE_URL: the schema has revision {revision}, which this release does not know")
    from alembic import command  # noqa: PLC0415  # only a start that migrates pays for the import
    from alembic.config import Config  # noqa: PLC0415  # the same

    say(settings, f"Migrating   {database_name(settings)}")
    command.upgrade(Config(ROOT / "alembic.ini"), "head")


def fit_connections(settings: Settings) -> Settings:
    """Keep the connections of all processes within PostgreSQL's limit: lower DB_SLOTS if it is the default, or exit if
    it was set."""
    if settings.on_sqlite:
        return settings
    available = usable_connections(settings)
    most = (available // settings.workers - OTHER_CONNECTIONS) // 2
    if settings.db_slots <= most:
        return settings
    needed = settings.workers * (2 * settings.db_slots + OTHER_CONNECTIONS)
    why = f"WORKERS={settings.workers} could open {needed} connections, and PostgreSQL allows {available}"
    if most < 1:
        sys.exit(f"muster: WORKERS: {settings.workers} is too many: {why}. Lower WORKERS, or raise max_connections")
    if "db_slots" in settings.model_fields_set:
        sys.exit(f"muster: DB_SLOTS: {settings.db_slots} is too many: {why}. At most {most} fits")
    say(settings, f"muster: DB_SLOTS: lowered from {settings.db_slots} to {most}: {why}")
    os.environ["DB_SLOTS"] = str(most)
    get_settings.cache_clear()
    return get_settings()


def usable_connections(settings: Settings) -> int:
    """max_connections, less those that PostgreSQL reserves for superusers and for pg_use_reserved_connections."""
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
    """Create an empty folder for the metrics of several processes, before the first of them looks for it.

    On Linux it is in memory: its files are mapped, and a full disk kills whoever writes to a mapped file.
    """
    if settings.workers > 1:
        memory = "/dev/shm"  # noqa: S108  # on Linux; mkdtemp makes a folder that nobody else has
        folder = mkdtemp(prefix="muster-metrics-", dir=memory if os.access(memory, os.W_OK) else None)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder


def allow_many_connections() -> None:
    """Raise the limit of open files: each connection is one, and a shell's usual limit of 1,024 turns clients away."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ---- What the terminal shows ----


def banner(settings: Settings, *, demo: bool, reload: bool) -> str:
    url = settings.public_url
    lines = {"Muster": url}
    if settings.serves == "web":
        lines["API"] = str(settings.api_url)
    else:
        lines |= {"Swagger UI": f"{url}/api/docs", "Data": database_name(settings), "Mail": mail_route(settings)}
        if settings.redis_url:
            lines["Jobs"] = "run by ./scripts/worker"
    if demo:
        lines["Demo"] = DEMO_ACCOUNT
    if reload:
        lines["Reload"] = "on: changed code or text in app/ restarts the server; a new migration needs another start"
    if settings.environment != "production":
        lines["Next"] = next_steps(settings, demo=demo)
        lines["Stop"] = "Ctrl-C"
    return "\n".join(f"{name:<12}{text}" for name, text in lines.items())


def next_steps(settings: Settings, *, demo: bool) -> str:
    url, indent = settings.public_url, "\n" + " " * 12
    if demo:
        steps = [f"sign in at {url}/sign-in, or authorize in the Swagger UI"]
    elif settings.serves == "api":
        steps = ["register and authorize in the Swagger UI"]
    elif settings.local_accounts == "off":
        steps = [f"sign in at {url}/sign-in with an account of your identity provider"]
    else:
        steps = [f"register at {url}/register, or start with --demo to look around"]
    if settings.serves != "web" and not has_admin(settings):
        steps.append("create an admin: ./scripts/seed.py --admin you@example.com")
    return indent.join(steps)


def mail_route(settings: Settings) -> str:
    parts = urlsplit(settings.mail_url)
    if parts.scheme == "smtp":
        return f"sent through {parts.hostname}"
    folder = relative(parts.path) if parts.scheme else "data/outbox"
    shown = (
        f"shown at {settings.public_url}/dev/mail, and " if settings.has_mailbox and settings.serves != "api" else ""
    )
    return f"{shown}saved as files in {folder}, not sent"


def goodbye(settings: Settings) -> str:
    kept = "" if settings.serves == "web" else f" Everything is saved in {database_name(settings)}."
    return f"Muster has stopped.{kept} ./scripts/serve starts it again."


if __name__ == "__main__":
    main()

"""scripts/start.py run as a process: what it prints, what it refuses, and that it can be started again."""

import ctypes
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from app.core.migrations import newest_revision
from tests.support.connections import has_ipv6
from tests.support.databases import ROOT, SECRET_KEY
from tests.support.disks import small_disk
from tests.support.processes import Fork
from tests.support.servers import NO_TLS, Muster, free_port, wait_for
from tests.support.starts import environment, expect_refusal

pytestmark = [pytest.mark.slow, pytest.mark.one_database]

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # prctl(2), capabilities(7)
START = [sys.executable, "-m", "scripts.start"]


@contextmanager
def started(command: list[str], *, folder: Path, port: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A ready process that was started by other means than `Muster` uses."""
    pipe, same = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, cwd=folder, env=environment(**settings), stdout=pipe, stderr=same) as process:
        try:
            wait_for(lambda: is_ready(process, port), what="a ready service")
            yield process
        finally:
            process.terminate()


def is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "it ended"
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", verify=NO_TLS).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.both_databases
def test_the_banner_shows_where_everything_is_and_no_password(database_url: str, folder: Path) -> None:
    # That of the template: with another, the start also logs that Swagger UI is registered at another address.
    with Muster(database_url, folder, PUBLIC_URL="http://localhost:8000") as muster:
        data = database_url.removeprefix("sqlite:///") if database_url.startswith("sqlite") else "PostgreSQL"
        assert muster.log == (
            "Muster      http://localhost:8000\n"
            "Swagger UI  http://localhost:8000/api/docs\n"
            f"Data        {data}\n"
            f"Mail        saved as files in {muster.outbox}, not sent\n"
            "Next        register at http://localhost:8000/register, or start with --demo to look around\n"
            "            create an admin: ./scripts/seed.py --admin you@example.com\n"
            "Stop        Ctrl-C\n"
        )


def test_rarely_needed_packages_are_imported_on_use_and_those_that_the_audit_ignores_never() -> None:
    """Half a second of the start, and 27 MB; scripts/audit.py says what it ignores."""
    rare = {"alembic", "celery", "httpx", "jinja2", "psycopg", "redis", "zxcvbn"}
    code = f"import sys, scripts.start, app.main; print(*sorted({rare | {'ecdsa', 'rsa'}} & set(sys.modules)))"
    own = environment(DATABASE_URL="sqlite:///unused.db", ENVIRONMENT="test", SECRET_KEYS=SECRET_KEY)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=own, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.both_databases
def test_a_second_start_goes_on_where_the_first_one_ended(empty_database_url: str, folder: Path) -> None:
    with Muster(empty_database_url, folder) as muster:
        phone = muster.register().sign_in()
        muster.stop()
        muster.start()
        assert muster.me(phone).status_code == 200


@pytest.mark.both_databases
def test_three_concurrent_first_starts_all_serve(empty_database_url: str, folder: Path) -> None:
    three = [Muster(empty_database_url, folder, PUBLIC_URL="http://localhost:8000") for _ in range(3)]
    try:
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(Muster.start, three))
        phone = three[0].register().sign_in()
        assert [muster.me(phone).status_code for muster in three] == [200, 200, 200]
    finally:
        for muster in three:
            muster.stop()
            muster.client.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_busy_port_is_reported_in_one_line_that_names_it(folder: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = str(other.getsockname()[1])
        line = expect_refusal(DATABASE_URL=f"sqlite:///{folder}/busy-{port}.db", PORT=port, WORKERS=workers)
    assert line.startswith(f"muster: PORT: {port} is taken; ")
    advised = re.search(r"; (\d+) is free: PORT=\1 \./scripts/serve$", line)
    assert advised
    assert int(port) < int(advised[1]) < int(port) + 100


def test_a_database_that_cannot_be_used_is_reported_in_one_line_without_its_password(tmp_path: Path) -> None:
    no_database = tmp_path / "no-database"
    no_database.write_text("a letter to a friend, " * 100)
    for url in (
        "postgresql://ada:sesame@127.0.0.1:1/muster",
        f"sqlite:///{tmp_path}/no/such/folder.db",
        f"sqlite:///{tmp_path}",
        f"sqlite:///{no_database}",
    ):
        line = expect_refusal(DATABASE_URL=url)
        assert line.startswith("muster: DATABASE_URL: ")
        assert "sesame" not in line


@pytest.mark.both_databases
def test_a_database_of_a_newer_release_is_refused_with_one_line(database_url: str, folder: Path) -> None:
    Muster(database_url, folder).sql("UPDATE alembic_version SET version_num = 'f00000000001'")
    line = expect_refusal(DATABASE_URL=database_url)
    assert line.startswith("muster: DATABASE_URL: ")
    assert "f00000000001" in line


def test_serve_works_from_another_folder_and_ctrl_c_stops_it_with_a_goodbye(database_url: str, tmp_path: Path) -> None:
    port = free_port()
    settings = {"ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY, "DATABASE_URL": database_url, "PORT": str(port)}
    with started([str(ROOT / "scripts" / "serve")], folder=tmp_path, port=port, **settings) as process:
        assert list(tmp_path.iterdir()) == []
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"Traceback" not in said
    goodbye = said.decode().splitlines()[-1]
    assert re.fullmatch(r"Muster has stopped\. Everything is saved in .+\. \./scripts/serve starts it again\.", goodbye)


def test_the_host_may_be_an_ipv6_address(database_url: str, folder: Path) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    muster = Muster(database_url, folder, HOST="::1")
    muster.url = f"http://[::1]:{muster.port}"
    with muster:
        assert muster.client.get("/health/live").status_code == 200


def test_a_start_with_an_env_file_alone_serves_from_its_own_folder_and_reload_restarts_it(tmp_path: Path) -> None:
    port = free_port()
    project = project_in(tmp_path)
    (project / ".env").write_text(f"HOST=0.0.0.0\nPORT={port}\n")
    with started([*START, "--reload"], folder=project, port=port, SECRET_KEYS="") as process:
        listening = psutil.Process(process.pid).net_connections("tcp4")
        everywhere = ("0.0.0.0", port)  # noqa: S104  # what the .env above asks for
        assert everywhere in [each.laddr for each in listening if each.status == psutil.CONN_LISTEN]
        assert process.stdout is not None
        banner = process.stdout.read1().decode()  # type: ignore[attr-defined]  # a pipe is buffered
        for changed in ("core/scopes.py", "pages/texts.toml"):
            (server,) = psutil.Process(process.pid).children()[-1:]
            with (project / "app" / changed).open("a") as file:
                file.write("# a change\n")
            wait_for(lambda server=server: not server.is_running(), what=f"the server's end after {changed}")  # type: ignore[misc]  # its default
            wait_for(lambda: is_ready(process, port), what="the next server")
    assert "Data        data/muster.db\n" in banner
    written = [project / "data", *(project / "data").iterdir()]
    assert {path.name for path in written} >= {"muster.db", "secret.key"}
    assert [path for path in written if path.stat().st_mode & 0o077] == []  # its owner's alone


def test_a_data_folder_that_cannot_be_written_is_reported_in_one_line_that_names_it(tmp_path: Path) -> None:
    project = project_in(tmp_path)
    (project / "data").write_text("a file")
    assert refused_in(project) == f"muster: {project}/data cannot be used: File exists\n"
    (project / "data").unlink()
    (project / "data").mkdir(mode=0o500)
    assert refused_in(project) == f"muster: {project}/data cannot be used: Permission denied\n"


def test_a_database_that_cannot_be_written_is_reported_in_one_line_that_names_it(
    tmp_path: Path, database_url: str
) -> None:
    project = project_in(tmp_path)
    (project / "data").mkdir()
    shutil.copy(database_url.removeprefix("sqlite:///"), project / "data" / "muster.db")
    (project / "data" / "muster.db").chmod(0o400)
    assert refused_in(project).startswith("muster: DATABASE_URL: data/muster.db cannot be written: it, its folder and ")


def test_a_migration_that_fails_is_named_and_leaves_the_database_as_it_was(tmp_path: Path, database_url: str) -> None:
    project = project_in(tmp_path)
    (project / "data").mkdir()
    shutil.copy(database_url.removeprefix("sqlite:///"), project / "data" / "muster.db")
    before = (project / "data" / "muster.db").read_bytes()
    name = "migrations/versions/2099_12_31_0000-fffffffffffe_too_late.py"
    (project / name).write_text(BROKEN.format(newest_revision()))
    assert refused_in(project, said="Migrating   data/muster.db\n") == (
        f"muster: {name} failed, and data/muster.db is as it was: no such table: nowhere\n"
    )
    assert (project / "data" / "muster.db").read_bytes() == before


BROKEN = """
from alembic import op

revision, down_revision = "fffffffffffe", "{}"


def upgrade() -> None:
    op.execute("CREATE TABLE somewhere (id INTEGER)")
    op.execute("DELETE FROM nowhere")
"""


def test_a_full_disk_under_data_kills_no_process(tmp_path: Path, database_url: str) -> None:
    port, project = free_port(), project_in(tmp_path)
    settings = {"WORKERS": "2", "PORT": str(port), "DATABASE_URL": database_url, "ENVIRONMENT": "test"}
    settings["SECRET_KEYS"] = ""  # the one in data/
    with small_disk(project / "data") as disk, started(START, folder=project, port=port, **settings) as process:
        workers = psutil.Process(process.pid).children()
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        for path in ("/api/users/me", "/api/jobs", "/api/heroes", "/nowhere", "/metrics") * 4:  # of either process
            assert httpx.get(f"http://127.0.0.1:{port}{path}", verify=NO_TLS).status_code < 500
        assert psutil.Process(process.pid).children() == workers


def project_in(folder: Path) -> Path:
    project = folder / "project"
    for name in ("app", "migrations", "scripts"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copy(ROOT / "alembic.ini", project)
    return project


def refused_in(project: Path, *, said: str = "") -> str:
    """The last words of a refused start in `project`, bound by file permissions even where the tests run as root."""
    done = subprocess.run(
        START,
        cwd=project,
        env=environment(PORT=str(free_port()), SECRET_KEYS=""),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0),
    )
    assert (done.returncode, done.stdout) == (1, said)
    return done.stderr


def test_reload_and_several_processes_exclude_each_other() -> None:
    line = expect_refusal("--reload", WORKERS="2")
    assert line == "muster: WORKERS: --reload serves with one process; leave WORKERS at 1\n"


def test_the_pages_alone_are_refused_without_the_address_of_the_api_before_the_banner() -> None:
    assert expect_refusal(SERVES="web").startswith("muster: API_URL: the pages alone need ")


def test_the_pages_alone_start_without_a_database(tmp_path: Path) -> None:
    port, nowhere = free_port(), "postgresql://nobody@127.0.0.1:1/none"
    pages = environment(
        ENVIRONMENT="test", SERVES="web", API_URL="http://127.0.0.1:1", DATABASE_URL=nowhere, PORT=str(port)
    )
    process = Fork(["scripts.start"], pages, tmp_path / "log")
    try:
        wait_for(lambda: is_live(port), what="the pages")
    finally:
        process.terminate()
        process.wait(30)


def is_live(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live", verify=NO_TLS).status_code == 200
    except httpx.TransportError:
        return False

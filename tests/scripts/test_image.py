"""The Dockerfile without Docker: what it copies and runs, in an empty folder, and what compose starts, as its user.

What only an engine could show is listed in docs/operating.md.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest
import yaml

from app.core.settings import Settings
from tests.support.databases import ROOT, fresh_database
from tests.support.redis_server import RedisServer
from tests.support.servers import NO_TLS, free_port, wait_for

pytestmark = pytest.mark.slow

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


class Image:
    """The Dockerfile's steps, taken in `folder`."""

    def __init__(self, folder: Path, uid: int, tools: Path) -> None:
        self.folder, self.uid, self.tools = folder, uid, tools
        self.variables: dict[str, str] = {}
        self.user = self.stop_signal = ""
        self.commands: dict[str, list[str]] = {}
        text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
        for line in text.replace("\\\n", " ").splitlines():
            if line.strip():
                step, _, rest = line.partition(" ")
                self.take(step, rest.strip())

    def take(self, step: str, rest: str) -> None:
        match step:
            case "ARG" | "ENV":
                self.variables |= dict(pair.split("=", 1) for pair in shlex.split(rest))
                if step == "ARG":
                    self.variables["UID"] = str(self.uid)
            case "COPY":
                *sources, target = rest.split()
                for source in sources:
                    self.copy(source, target)
            case "RUN":
                subprocess.run(["sh", "-euc", rest], cwd=self.folder, env=self.environment(), check=True)
            case "CMD":
                self.commands["CMD"] = json.loads(rest)
            case "HEALTHCHECK":
                self.commands["HEALTHCHECK"] = json.loads(rest.partition(" CMD ")[2])
            case "USER":
                self.user = rest
            case "STOPSIGNAL":
                self.stop_signal = rest
            case _:
                assert step in {"FROM", "LABEL", "WORKDIR", "EXPOSE"}, step

    def copy(self, source: str, target: str) -> None:
        ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in {"#", ""}]
        assert any(f"!{part}" in ignored for part in (source, str(Path(source).parent))), f"{source} is ignored"
        skipped = [line for line in ignored if line[0] not in "!*"]

        def skip(folder: str, names: list[str]) -> list[str]:
            paths = {name: str((Path(folder) / name).relative_to(ROOT)) for name in names}
            return [n for n, path in paths.items() if n == "__pycache__" or any(fnmatch(path, s) for s in skipped)]

        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, self.folder / target, dirs_exist_ok=True, ignore=skip)
        else:
            (self.folder / target).mkdir(exist_ok=True)
            shutil.copy(ROOT / source, self.folder / target)
        copied = (
            (self.folder / target).rglob("*")
            if (ROOT / source).is_dir()
            else [self.folder / target / Path(source).name]
        )
        for path in copied:  # as in a clone made with umask 077, and with 002, which lets the group write
            path.chmod(path.stat().st_mode & 0o700 | 0o020)

    def environment(self, **settings: str) -> dict[str, str]:
        path = f"{self.tools}:{os.environ['PATH']}"
        known = {name.upper() for name in Settings.model_fields}
        ours = {name: value for name, value in os.environ.items() if name not in known}
        return {**ours, **self.variables, "PATH": path, **settings}

    @contextmanager
    def started(self, service: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """The process as compose starts it; ended by the signal that compose sends, in time and without an error."""
        command = COMPOSE[service].get("command", self.commands["CMD"])
        with subprocess.Popen(
            command, cwd=self.folder, env=self.environment(**settings), user=self.uid, group=self.uid
        ) as process:
            try:
                yield process
            finally:
                process.terminate()
                assert process.wait(30) in {0, -15}

    def is_healthy(self, **settings: str) -> bool:
        check = self.commands["HEALTHCHECK"]
        return subprocess.run(check, cwd=self.folder, env=self.environment(**settings), check=False).returncode == 0


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    """The image with a user other than root: PostgreSQL's own where that listens on a socket for itself alone."""
    server = folder / "postgres"
    uid = os.getuid() or (server.stat().st_uid if server.exists() else 0) or 10_001
    place, tools = Path(tempfile.mkdtemp(prefix="image-", dir=folder)), folder / "image-tools"
    place.chmod(0o755)
    tools.mkdir(exist_ok=True)
    # With uv, which the image does not have, the libraries come from its cache.
    for name, program in (("python3", python_for(uid)), ("uv", Path(sys.executable).with_name("uv"))):
        with suppress(FileExistsError):  # another worker of the run may have been quicker
            (tools / name).symlink_to(program)
    return Image(place, uid, tools)


def python_for(uid: int) -> str:
    """A Python that this user can run: our own may be in root's home."""
    fits = "import sys; sys.exit(sys.version_info < (3, 11))"
    for program in (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            if subprocess.run([program, "-c", fits], user=uid, cwd="/", check=False).returncode == 0:
                return program
        except OSError:
            continue
    pytest.skip("no Python 3.11 here that another user than root can run")


def test_the_image_is_run_by_a_user_who_cannot_change_it(image: Image) -> None:
    assert image.user == "$UID:$UID"
    assert image.stop_signal == "SIGTERM"
    assert image.uid != 0
    if os.getuid() == 0:
        owners = {path.stat().st_uid for path in (image.folder / "app").rglob("*")}
        assert owners == {0}
        copied = [path for name in ("app", "migrations", "scripts") for path in (image.folder / name).rglob("*")]
        assert {path.stat().st_mode & 0o066 for path in [*copied, image.folder / "alembic.ini"]} == {0o044}
        assert (image.folder / "data").stat().st_uid == image.uid
    assert not (image.folder / ".env").exists()
    assert not (image.folder / "scripts" / "benchmarks").exists()


def test_the_image_serves_on_sqlite_with_no_setting_at_all(image: Image) -> None:
    port = str(free_port())
    assert not image.is_healthy(PORT=port)
    with image.started("web", PORT=port, DB_SLOTS="2"):
        wait_for(lambda: is_ready(f"http://127.0.0.1:{port}"), what="a first start", seconds=120)
        assert image.is_healthy(PORT=port)
    assert {path.name for path in (image.folder / "data").iterdir()} >= {"muster.db", "secret.key"}


def test_the_services_that_compose_starts_work_together(
    image: Image, folder: Path, postgres: str, redis: RedisServer
) -> None:
    """The pages, the API and a worker, each with its own settings of compose.yaml, on one data folder."""
    with fresh_database("postgresql", folder, postgres, migrated=False) as url:
        settings = {name: resolved(COMPOSE[name]["environment"]) for name in ("web", "api", "worker")}
        for each in settings.values():
            each |= {"DATABASE_URL": url, "REDIS_URL": redis.url, "PORT": str(free_port())}
        web, api = (f"http://127.0.0.1:{settings[name]['PORT']}" for name in ("web", "api"))
        with image.started("web", **settings["web"]), image.started("api", **settings["api"]):
            for address in (web, api):
                wait_for(lambda address=address: is_ready(address), what=f"{address} to be ready", seconds=120)  # type: ignore[misc]
            with image.started("worker", **settings["worker"]):  # it depends on the web service, which has migrated
                body = {"email": "ada@example.com", "password": "violet-tandem-harbor"}
                httpx.post(f"{web}/api/auth/register", json=body, verify=NO_TLS).raise_for_status()
                form = {"grant_type": "password", "username": body["email"], "password": body["password"]}
                access = httpx.post(f"{web}/api/auth/token", data=form, verify=NO_TLS).json()["access_token"]
                with httpx.Client(base_url=api, headers={"Authorization": f"Bearer {access}"}, verify=NO_TLS) as client:
                    job = client.post("/api/jobs/statement", json={})
                    assert job.status_code == 202, job.text  # one secret signs for both
                    place = job.headers["location"]
                    wait_for(lambda: client.get(place).json()["state"] == "done", what="the worker", seconds=60)
                    assert image.is_healthy(PORT=str(free_port())), "a worker has no port"
                    token = {"Authorization": f"Bearer {settings['api']['METRICS_TOKEN']}"}
                    assert "muster_database_up 1.0" in client.get("/metrics", headers=token).text


def resolved(environment: dict[str, str]) -> dict[str, str]:
    """The value with the defaults that compose fills in."""
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in environment.items()}


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/ready", verify=NO_TLS).status_code == 200
    except httpx.TransportError:
        return False

"""The log: one JSON line a request in production, lines of their own for what happens to accounts, and no secrets."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import pytest
from uvicorn.config import STARTUP_FAILURE
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.databases import ROOT, fresh_database
from tests.support.redis_server import RedisServer
from tests.support.servers import STARTUP, Muster, claims_of, free_port, wait_for
from tests.support.sockets import Socket
from tests.support.starts import environment

pytestmark = pytest.mark.one_database

PRODUCTION = """
import logging
from app.core.logs import configure_logging, request_id, security_event
from app.core.settings import get_settings
configure_logging(get_settings().model_copy(update={"environment": "production"}))
request_id.set("one")
logging.getLogger("muster.request").info("GET /x 200", extra={"fields": {"route": "/x", "status": 200}})
security_event("a\\nnew line", user_id="someone")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("muster.error").exception("ticket 1")
"""

SUPERVISOR = """
from app.core.logs import configure_logging
from app.core.settings import get_settings
from scripts import start
settings = get_settings()
configure_logging(settings)
start.share_metrics(settings)
start.serve(settings, reload=False)
"""
IN_PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEYS": token_urlsafe(48),
    "PUBLIC_URL": "https://muster.example",
    "MAIL_URL": "smtp://127.0.0.1:1",  # a server that no test here uses
}


@pytest.fixture(scope="module")
def served(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance in production."""
    with fresh_database(kind, folder, postgres) as url, Muster(url, folder, **IN_PRODUCTION) as muster:
        yield muster


def lines_of(code: str, *, status: int = 0, **settings: str) -> list[dict[str, Any]]:
    command, own = [sys.executable, "-c", code], environment(**settings)
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.slow
def test_in_production_a_record_is_one_line_of_json() -> None:
    request, event, error = lines_of(PRODUCTION)
    assert request.items() >= {"request_id": "one", "level": "INFO", "route": "/x", "status": 200}.items()
    assert request["time"].endswith("+00:00")
    assert event.items() >= {"logger": "muster.security", "user_id": "someone"}.items()
    assert event["message"] == "a\nnew line user_id=someone"
    assert "ZeroDivisionError" in error["exception"]


@pytest.mark.slow
def test_in_production_the_supervisor_of_several_processes_logs_uvicorns_messages_in_json(tmp_path: Path) -> None:
    """Here that one of them has failed to start: the database is not migrated."""
    several = {**IN_PRODUCTION, "WORKERS": "2", "REDIS_URL": "redis://127.0.0.1:1/0", "PORT": str(free_port())}
    lines = lines_of(SUPERVISOR, status=STARTUP_FAILURE, **several, DATABASE_URL=f"sqlite:///{tmp_path}/empty.db")
    assert {line["logger"] for line in lines} == {"uvicorn.error"}
    assert any("not migrated" in line["message"] for line in lines)
    (last,) = [line["message"] for line in lines if line["message"].startswith("Child process")]
    assert last.endswith("failed to start, stopping the parent process.")


def test_a_request_is_logged_with_its_session_and_without_its_content(served: Muster) -> None:
    account = served.register()
    tokens = account.sign_in()
    claims = claims_of(tokens.access)
    served.client.get("/api/operations?figi=SECRET", headers={**tokens.bearer, "X-Request-ID": "mine"})
    line = wait_for(lambda: of_request(served, "mine"), what="its line")
    assert line.items() >= {"method": "GET", "route": "/api/operations", "status": 200}.items()
    assert (line["user_id"], line["session_id"]) == (claims["sub"], claims["sid"])
    assert line["milliseconds"] > 0
    for secret in ("SECRET", account.email, account.password, tokens.access, tokens.refresh):
        assert secret not in served.log


def of_request(muster: Muster, request_id: str, of: str = "status") -> dict[str, Any] | None:
    complete = muster.log.rpartition("\n")[0]  # the last line may be half written
    lines = [json.loads(line) for line in complete.splitlines()]
    return next((line for line in lines if line["request_id"] == request_id and of in line), None)


def test_health_checks_and_scrapes_do_not_fill_the_log(served: Muster) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        served.client.get(path, headers={"X-Request-ID": path.rpartition("/")[2]})
    line = wait_for(lambda: of_request(served, "metrics"), what="the line of the refused scrape")
    assert line["status"] == 403
    assert (of_request(served, "live"), of_request(served, "ready")) == (None, None)


def test_static_files_and_the_document_are_logged_by_route_and_files_that_exist_not_at_all(served: Muster) -> None:
    asked = {"found": "/static/muster.css", "missing": "/static/SECRET", "document": "/api/openapi.json", "none": "/S"}
    for request_id, path in asked.items():
        served.client.get(path, headers={"X-Request-ID": request_id})
    wait_for(lambda: of_request(served, "none"), what="the last line")
    lines = {request_id: of_request(served, request_id) for request_id in asked}
    assert {request_id: line and (line["route"], line["status"]) for request_id, line in lines.items()} == {
        "found": None,
        "missing": ("/static/{path}", 404),
        "document": ("/api/openapi.json", 200),
        "none": ("-", 404),
    }
    assert "SECRET" not in served.log


@pytest.mark.slow
def test_a_worker_in_production_logs_in_json_that_it_is_ready_and_that_it_has_stopped(
    served: Muster, redis: RedisServer
) -> None:
    log = served.folder / "worker"
    log.touch()
    process = served.launch(["scripts.worker"], {**os.environ, **served.settings, "REDIS_URL": redis.url}, log)
    try:
        wait_for(lambda: "The worker is ready." in log.read_text(), what="a worker")
    finally:
        process.terminate()
        process.wait(STARTUP)
    messages = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert messages[0].startswith("Worker runs jobs of the queues high, default")
    assert messages[-1] == "The worker has stopped."


def test_a_socket_is_logged_when_it_ends_with_its_close_code(served: Muster) -> None:
    tokens = served.new_account().tokens()
    claims = claims_of(tokens.access)
    with Socket(served, headers={**tokens.bearer, "X-Request-ID": "socket"}) as socket:
        socket.ready()
    with Socket(served, headers={"Authorization": "Bearer made.up.token", "X-Request-ID": "refused"}) as socket:
        assert socket.closed() == 4401
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{served.port}/api/nowhere", additional_headers={"X-Request-ID": "nowhere"})
    line = wait_for(lambda: of_request(served, "nowhere", "code"), what="its line")
    assert line["code"] == 403
    line = wait_for(lambda: of_request(served, "socket", "code"), what="its line")
    assert line.items() >= {"method": "WS", "route": "/api/chat/ws", "code": 1000, "user_id": claims["sub"]}.items()
    line = wait_for(lambda: of_request(served, "refused", "code"), what="its line")
    assert (line["code"], "user_id" in line) == (4401, False)


def test_events_of_an_account_are_logged_as_security_events(muster: Muster) -> None:
    admin, account = muster.admin().tokens(), muster.new_account()
    tokens = account.sign_in()
    user_id, session_id = claims_of(tokens.access)["sub"], claims_of(tokens.access)["sid"]
    by = claims_of(admin.access)["sub"]
    for change in ({"role": "admin"}, {"is_active": False}):
        answer = muster.client.patch(f"/api/users/{user_id}", json=change, headers=admin.bearer)
        assert answer.status_code == 200
    for line in (
        f"sign-in user_id={user_id} session_id={session_id} actor_id={user_id} method=password",
        f"role-changed user_id={user_id} actor_id={by} role=admin",
        f"account-disabled user_id={user_id} actor_id={by}",
    ):
        assert line in muster.log, line

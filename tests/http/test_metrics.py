"""/metrics: who may read it, and whether its numbers match the requests sent."""

import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import psycopg
import pytest
from starlette.requests import Request

from app.core.errors import MetricsRefused
from app.core.settings import get_settings
from app.http.monitoring import check_scraper
from app.models.job import JobKind, JobState
from tests.support.assertions import assert_problem
from tests.support.databases import ROOT, fresh_database
from tests.support.metrics import FAMILIES, number, scrape
from tests.support.servers import Muster, wait_for
from tests.support.sockets import Socket
from tests.support.starts import environment, expect_refusal

pytestmark = pytest.mark.one_database

Serve = Callable[..., Muster]

TOKEN = "a token of the one who scrapes"
OURS = ("muster_", "http_")  # Prometheus' client exports more: of the process


# ---- Access ----


@pytest.mark.slow
def test_without_a_token_this_machine_alone_may_read(muster: Muster) -> None:
    assert number(scrape(muster), "muster_database_up") == 1
    for header in ("X-Forwarded-For", "Forwarded"):
        answer = muster.client.get("/metrics", headers={header: "127.0.0.1"})
        assert_problem(answer, 403, "metrics-refused")


def test_behind_a_trusted_proxy_the_clients_address_counts(serve: Serve) -> None:
    muster = serve(TRUSTED_PROXIES="127.0.0.0/8")
    answer = muster.client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"})
    assert_problem(answer, 403, "metrics-refused")


def test_with_a_token_its_bearer_alone_may_read(serve: Serve) -> None:
    muster = serve(METRICS_TOKEN=TOKEN)
    assert_problem(muster.client.get("/metrics"), 401, "unauthenticated")
    for wrong in (f"Bearer {TOKEN}x", TOKEN, "Bearer", "Basic Og=="):
        assert_problem(muster.client.get("/metrics", headers={"Authorization": wrong}), 401, "invalid-token")
    assert scrape(muster, Authorization=f"Bearer {TOKEN}")
    assert TOKEN not in muster.log


def test_in_production_nobody_may_read_without_a_token() -> None:
    request = Request({"type": "http", "headers": [], "client": ("127.0.0.1", 1)})
    production = get_settings().model_copy(update={"environment": "production", "metrics_token": None})
    with pytest.raises(MetricsRefused):
        check_scraper(request, production)


@pytest.mark.slow
def test_a_refused_scrape_waits_for_no_thread(serve: Serve) -> None:
    muster = serve(app="tests.support.apps.extra_routes:app", METRICS_TOKEN=TOKEN)
    assert muster.client.post("/test/threads").json() > 0
    try:
        assert_problem(muster.client.get("/metrics"), 401, "unauthenticated")
    finally:
        muster.client.delete("/test/threads")


# ---- Counts ----


@pytest.mark.slow
def test_events_of_an_account_are_counted(muster: Muster) -> None:
    before = scrape(muster)
    account = muster.new_account()
    phone = account.sign_in()
    muster.token(grant_type="password", username=account.email, password="not the password")
    newer = muster.refresh(phone.refresh).json()
    muster.refresh(newer["refresh_token"])  # confirms it, so that the first one's next use is theft
    muster.refresh(phone.refresh)
    after = scrape(muster)

    def more(name: str, **labels: str) -> float:
        return number(after, name, **labels) - number(before, name, **labels)

    assert more("muster_logins_total", result="ok") == 1
    assert more("muster_logins_total", result="refused") == 1
    assert more("muster_rotations_total") == 2
    assert more("muster_thefts_total") == 1
    token = {"method": "POST", "route": "/api/auth/token"}
    assert more("http_requests_total", **token, status="200") == 3
    assert more("http_requests_total", **token, status="400") == 2
    assert more("http_request_duration_seconds_count", **token) == 5


def test_metric_labels_contain_no_client_input(muster: Muster) -> None:
    muster.client.request("BREW", "/api/users/me")
    muster.client.get("/api/a-path-that-nobody-knows")
    tokens = muster.new_account().tokens()
    muster.client.get("/api/operations/987654", headers=tokens.bearer)
    text = muster.client.get("/metrics").text
    assert "BREW" not in text
    assert "nobody-knows" not in text
    assert "operations/987654" not in text
    assert 'route="/api/operations/{operation_id}"' in text


def documented() -> dict[str, set[str]]:
    """{name: labels} of the table in docs/operating.md."""
    section = (ROOT / "docs/operating.md").read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    cells = "".join(re.findall(r"^\| (`.+?) \|", section, re.MULTILINE))
    named = re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", cells)
    assert len(named) == len({name for name, _ in named})
    return {name: set(labels.split(",")) - {""} for name, labels in named}


def test_the_documented_metrics_are_those_that_exist() -> None:
    existing = {family.name + ("_total" if family.type == "counter" else "") for family in FAMILIES}
    assert {name for name in existing if name.startswith(OURS)} == {*documented()}


@pytest.mark.slow
def test_every_series_of_a_scrape_has_a_documented_name_and_its_labels(serve: Serve) -> None:
    """Labeled series too, which exist only once there has been something to count."""
    muster = serve(LIMIT_REGISTER="1/hour")
    tokens = muster.new_account().sign_in()
    muster.client.post("/api/jobs/statement", json={}, headers=tokens.bearer)
    for _ in range(2):
        muster.client.post("/api/auth/forgot-password", json={"email": "ada@example.com"})
    with Socket(muster, tokens) as socket:
        socket.ready()
    for ended in ('chat_subscribers_ended_total{ending="left"}', 'jobs_ended_total{kind="statement",result="done"}'):
        wait_for(lambda: f"muster_{ended}" in muster.client.get("/metrics").text, what=ended)  # noqa: B023  # at once
    names, seen = documented(), set()
    for series, samples in scrape(muster).items():
        if series.startswith(OURS) and not series.endswith("_created"):
            name = series if series in names else re.sub("_(bucket|count|sum)$", "", series)
            labels = {label for of_one in samples for label, _ in of_one} - ({"le"} if series != name else set())
            assert (series, labels) == (series, names.get(name))
            seen.add(name)
    assert seen == {*names}


def test_jobs_of_every_kind_and_state_are_counted_from_zero(muster: Muster) -> None:
    """Otherwise the first job that fails would not be a change, and alerts watch for changes."""
    text = muster.client.get("/metrics").text
    for kind, state in product(get_args(JobKind), (*get_args(JobState), "retrying")):
        assert f'muster_jobs{{kind="{kind}",state="{state}"}} ' in text


@pytest.mark.slow
@pytest.mark.both_databases
def test_an_unreachable_database_shows_in_the_metrics(kind: str, folder: Path, postgres: str) -> None:
    with fresh_database(kind, folder, postgres) as url, Muster(url, folder) as muster:
        muster.sql("ALTER TABLE job RENAME TO away")
        found = scrape(muster)
    assert number(found, "muster_database_up") == 0
    assert "muster_jobs" not in found


# ---- Connections to PostgreSQL ----


OF_ONE_SLOT, OTHERS = 2, 17  # connections of a process: for each of its slots, and beside them
DEFAULT_SLOTS = 16  # of a process on PostgreSQL
OF_ONE_PROCESS = OF_ONE_SLOT * DEFAULT_SLOTS + OTHERS


def usable_connections(postgres: str) -> int:
    """max_connections, less those that are kept for superusers and others."""
    names = ["max_connections", "reserved_connections", "superuser_reserved_connections"]
    with psycopg.connect(postgres) as server:
        # Before version 16 there are two of them.
        rows = server.execute("SELECT setting FROM pg_settings WHERE name = ANY(%s) ORDER BY name", [names])
        most, *kept = (int(setting) for (setting,) in rows)
    return most - sum(kept)


def test_a_default_number_of_slots_is_lowered_to_what_postgresql_has_room_for(postgres: str) -> None:
    usable = usable_connections(postgres)
    workers = min(usable // (OF_ONE_SLOT + OTHERS), 256)  # WORKERS is at most 256
    slots = (usable // workers - OTHERS) // OF_ONE_SLOT
    code = "from scripts.start import *; print(fit_connections(get_settings()).db_slots)"
    settings = {"ENVIRONMENT": "test", "DATABASE_URL": postgres, "WORKERS": str(workers)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(**settings), capture_output=True, text=True, check=True
    )
    said, left = done.stdout.splitlines()
    assert said == (
        f"muster: DB_SLOTS: lowered from {DEFAULT_SLOTS} to {slots}: WORKERS={workers} could open "
        f"{workers * OF_ONE_PROCESS} connections, and PostgreSQL allows {usable}"
    )
    assert left == str(slots)


def test_more_connections_than_postgresql_allows_stop_the_start(folder: Path, postgres: str) -> None:
    usable = usable_connections(postgres)
    slots, workers = min(usable, 1000), usable // (OF_ONE_SLOT + OTHERS) + 1  # DB_SLOTS is at most 1000
    with fresh_database("postgresql", folder, postgres) as url:
        too_many_slots = expect_refusal(DATABASE_URL=url, WORKERS="4", DB_SLOTS=str(slots))
        too_many_processes = expect_refusal(DATABASE_URL=url, WORKERS=str(workers))
    needed, most = 4 * (OF_ONE_SLOT * slots + OTHERS), (usable // 4 - OTHERS) // OF_ONE_SLOT
    assert too_many_slots == (
        f"muster: DB_SLOTS: {slots} is too many: WORKERS=4 could open {needed} connections, "
        f"and PostgreSQL allows {usable}. At most {most} fits\n"
    )
    assert too_many_processes == (
        f"muster: WORKERS: {workers} is too many: WORKERS={workers} could open {workers * OF_ONE_PROCESS} connections, "
        f"and PostgreSQL allows {usable}. Lower WORKERS, or raise max_connections\n"
    )

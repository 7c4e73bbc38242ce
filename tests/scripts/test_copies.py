"""scripts/backup, scripts/restore and scripts/to_postgres, run as commands on real databases."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from app.core.settings import Settings
from app.models.base import MAX_ID, all_tables, utcnow
from app.models.user import Identity
from tests.support.commands import fork, run
from tests.support.databases import SECRET_KEY, fresh_database
from tests.support.hostile import BODIES, bodies
from tests.support.processes import Fork, fork_module
from tests.support.schema import engine_for
from tests.support.servers import STARTUP, Muster, Tokens, wait_for

pytestmark = pytest.mark.slow

TASK = {"title": "Water the plants"}
MESSAGE = {"text": "Grüße\n\U0001f30d"}
OPERATION = {"type": "buy", "figi": "BBG000B9XRY4", "quantity": "0.00000001", "date": "2026-01-31T23:59:59.123456Z"}
LARGEST = "999999999999.99999999"


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0, done.stdout
    assert done.stderr.startswith("muster: "), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@contextmanager
def writing(muster: Muster, phone: Tokens) -> Iterator[None]:
    """A block in which somebody records operations all the time, and none fails."""
    begun, enough = Event(), Event()

    def write() -> int:
        count = 0
        with muster.another_client() as client:
            while not enough.wait(0.02):
                answer = client.post("/api/operations", json=OPERATION, headers=phone.bearer)
                assert answer.status_code == 201, answer.text
                begun.set()
                count += 1
        return count

    with ThreadPoolExecutor(1) as threads:
        count = threads.submit(write)
        try:
            assert begun.wait(STARTUP)
            yield
        finally:
            enough.set()
        assert count.result() > 1


def test_a_backup_under_load_comes_back_with_its_sessions(
    kind: str, serve: Callable[..., Muster], folder: Path, postgres: str, tmp_path: Path
) -> None:
    muster, file = serve(), tmp_path / "backup"
    account = muster.new_account()
    phone = account.sign_in()
    with writing(muster, phone):
        done = fork("backup", file, DATABASE_URL=muster.database_url)
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
    later = Tokens(muster.refresh(Tokens(muster.refresh(phone.refresh).json()).refresh).json())
    changes = muster.client.get("/api/operations/changes?since=0&limit=1", headers=later.bearer).json()
    muster.stop()
    with fresh_database(kind, folder, postgres, migrated=False) as url:
        done = fork("restore", file, DATABASE_URL=url)
        assert done.returncode == 0, done.stderr
        with Muster(url, folder, PUBLIC_URL=muster_url(muster)) as restored:
            check_one_moment(restored)
            assert restored.me(later).status_code == 200
            again = Tokens(restored.refresh(later.refresh).json())
            assert restored.me(again).status_code == 200
            stale = restored.client.get(f"/api/operations/changes?since={changes['next']}", headers=again.bearer)
            assert stale.status_code == 410
            new = restored.client.post("/api/operations", json=OPERATION, headers=again.bearer)
            assert new.json()["revision"] > 2**32
            check_ids(restored, again)
            full = restored.client.get("/api/operations/changes?since=0&full=true", headers=again.bearer)
            assert full.status_code == 200


def muster_url(muster: Muster) -> str:
    """The address that is the issuer of this instance's tokens."""
    return f"http://localhost:{muster.port}"


def check_ids(restored: Muster, phone: Tokens) -> None:
    """Check that no new id was issued before the restore, not even in tables that were empty in the backup."""
    for path, body in [("operations", OPERATION), ("tasks", TASK), ("chat/messages", MESSAGE)]:
        answer = restored.client.post(f"/api/{path}", json=body, headers=phone.bearer)
        assert answer.json()["id"] > 2**32, path


def check_one_moment(restored: Muster) -> None:
    """Check that the copy is of one moment: each operation raises the revision by one, so both numbers are equal."""
    (count, highest) = restored.sql("SELECT count(*), max(revision) FROM operation")[0]
    revision = restored.sql('SELECT max(operations_revision) FROM "user"')[0][0] - 2**32
    assert count == highest == revision


def test_restore_refuses_a_database_in_use_and_overwrites_only_with_force(
    serve: Callable[..., Muster], tmp_path: Path
) -> None:
    muster, file = serve(), tmp_path / "backup"
    before = muster.new_account()
    assert fork("backup", file, DATABASE_URL=muster.database_url).returncode == 0
    assert "exists" in refusal(fork("backup", file, DATABASE_URL=muster.database_url))
    after = muster.new_account()
    assert "in use" in refusal(fork("restore", file, "--force", DATABASE_URL=muster.database_url))
    muster.stop()
    assert "--force" in refusal(fork("restore", file, DATABASE_URL=muster.database_url))
    assert "no such file" in refusal(fork("restore", tmp_path / "none", "--force", DATABASE_URL=muster.database_url))
    done = fork("restore", file, "--force", DATABASE_URL=muster.database_url)
    assert done.returncode == 0, done.stderr
    muster.start()
    assert before.sign_in()
    answer = muster.token(grant_type="password", username=after.email, password=after.password)
    assert answer.status_code == 400


def test_a_backup_of_an_older_release_comes_back_with_higher_ids(folder: Path, postgres: str, tmp_path: Path) -> None:
    old, file = f"sqlite:///{tmp_path}/old.db", tmp_path / "backup"
    environment = {**os.environ, "DATABASE_URL": old, "ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY}
    before_ids_were_kept = fork_module("alembic", "upgrade", "9c5b71e0a4d6", environment=environment)
    assert before_ids_were_kept.returncode == 0, before_ids_were_kept.stderr
    assert run("backup", file, DATABASE_URL=old).returncode == 0
    with fresh_database("sqlite", folder, postgres, migrated=False) as url:
        assert fork("restore", file, DATABASE_URL=url).returncode == 0
        with Muster(url, folder) as restored:
            check_ids(restored, restored.new_account().tokens())


def test_a_database_that_pg_restore_alone_has_filled_is_finished_by_a_command_of_its_own(
    folder: Path, postgres: str, tmp_path: Path
) -> None:
    """Compose needs that command: its image has no pg_restore."""
    finish = ("restore", "--after-pg-restore")
    with fresh_database("postgresql", folder, postgres) as url, Muster(url, folder) as muster:
        muster.new_account()
        assert "in use" in refusal(fork(*finish, DATABASE_URL=url))
        muster.stop()
        done = fork(*finish, DATABASE_URL=url)
        assert done.returncode == 0, done.stderr
        assert muster.sql('SELECT operations_revision, operations_floor FROM "user"') == [(2**32, 2**32)]
    with fresh_database("postgresql", folder, postgres, migrated=False) as url:
        assert "no tables" in refusal(fork(*finish, DATABASE_URL=url))
    assert "for PostgreSQL" in refusal(fork(*finish, DATABASE_URL=f"sqlite:///{tmp_path}/none.db"))
    assert "takes a file" in refusal(fork("restore", DATABASE_URL=f"sqlite:///{tmp_path}/none.db"))


def test_a_restore_that_fails_at_the_very_end_changes_nothing(folder: Path, postgres: str, tmp_path: Path) -> None:
    """Revisions of the past would be issued again if the database were already the restored one."""
    file = tmp_path / "backup"
    with fresh_database("postgresql", folder, postgres) as url, Muster(url, folder) as muster:
        muster.new_account()
        muster.sql('UPDATE "user" SET operations_revision = :highest', highest=MAX_ID)
        assert fork("backup", file, DATABASE_URL=url).returncode == 0
        muster.sql('UPDATE "user" SET operations_revision = 7')
        muster.stop()
        assert "out of range" in refusal(fork("restore", file, "--force", DATABASE_URL=url))
        assert muster.sql('SELECT operations_revision FROM "user"') == [(7,)]


def test_a_database_in_use_is_noticed(folder: Path, postgres: str, tmp_path: Path) -> None:
    """Through a pooler, our connections may have any name."""
    file = tmp_path / "backup"
    with fresh_database("sqlite", folder, postgres) as old, fresh_database("postgresql", folder, postgres) as new:
        with Muster(old, folder):
            assert "in use" in refusal(fork("to_postgres", new, DATABASE_URL=old))
        file.touch()
        with engine_for(f"{new}{'&' if '?' in new else '?'}application_name=pooler").connect():
            assert "in use by pooler" in refusal(fork("restore", file, "--force", DATABASE_URL=new))


def test_missing_or_damaged_files_are_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("a letter to a friend, " * 1000)
    nowhere = f"sqlite:///{tmp_path}/none.db"
    assert "no such database" in refusal(fork("backup", tmp_path / "b", DATABASE_URL=nowhere))
    restore = partial(fork, "restore", DATABASE_URL=nowhere)
    assert refusal(restore(tmp_path / "letter")).startswith(
        f"muster: {tmp_path}/letter is not a SQLite database of Muster"
    )
    assert refusal(restore(tmp_path)) == f"muster: {tmp_path} is a folder; name a file in it\n"
    (tmp_path / "empty").touch()
    of_nothing = fork("backup", tmp_path / "b", DATABASE_URL=f"sqlite:///{tmp_path}/empty")
    assert refusal(of_nothing).startswith(f"muster: {tmp_path}/empty is not a SQLite database of Muster")
    assert {path.name for path in tmp_path.iterdir()} == {"letter", "empty"}
    nowhere_to_put_it = fork("backup", tmp_path / "no" / "b", DATABASE_URL=f"sqlite:///{tmp_path}/empty")
    assert refusal(nowhere_to_put_it) == f"muster: {tmp_path}/no: no such folder\n"
    backup = partial(fork, "backup", tmp_path / "b", DATABASE_URL="postgresql://a:sesame@127.0.0.1:1/m")
    assert "pg_dump is missing" in refusal(backup(PATH=str(tmp_path)))
    assert "sesame" not in refusal(backup())


@pytest.mark.parametrize(("command", "arguments"), [("restore", []), ("backup", ["a", "b"])])
def test_a_refusal_shows_the_usage_of_the_script_that_was_typed(command: str, arguments: list[str]) -> None:
    assert f". Usage: ./scripts/{command} " in refusal(fork(command, *arguments))


def test_a_move_is_refused_by_the_name_of_what_is_wrong_and_creates_nothing(
    folder: Path, postgres: str, tmp_path: Path
) -> None:
    to_postgres = partial(fork, "to_postgres", DATABASE_URL=f"sqlite:///{tmp_path}/none.db")
    for url in ("postgresfoo", "postgresql+psycopg", "postgresql://db:port/muster", "sqlite:///data/muster.db"):
        assert "URL has to be postgresql://" in refusal(to_postgres(url))
    assert f"there is no {tmp_path}/none.db" in refusal(to_postgres("postgresql://127.0.0.1:1/muster"))
    assert list(tmp_path.iterdir()) == []
    with fresh_database("sqlite", folder, postgres) as url:
        line = refusal(fork("to_postgres", "postgresql://127.0.0.1:1/muster", DATABASE_URL=url))
        assert line.startswith("muster: URL: the database cannot be used: ")


def test_a_backup_that_is_stopped_or_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    """The files that a killed backup leaves are deleted by the next one."""
    tools, place = tmp_path / "tools", tmp_path / "backups"
    for folder in (tools, place):
        folder.mkdir()
    (tools / "pg_dump").write_text("#!/bin/sh\nwhile kill -0 $PPID; do sleep 0.1; done")
    (tools / "pg_dump").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SECRET_KEYS": SECRET_KEY}
    environment["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"

    def end(how: signal.Signals) -> None:
        before = set(place.iterdir())
        command = ["scripts.backup_restore", "backup", str(place / "backup")]
        process = Fork(command, environment, tmp_path / "log")
        wait_for(lambda: [*place.glob("*/backup")] and set(place.iterdir()) - before, what="a draft of its own")
        os.kill(process.pid, how)
        assert process.wait(30) != 0

    end(signal.SIGKILL)
    assert list(place.iterdir())
    end(signal.SIGTERM)
    assert list(place.iterdir()) == []


def test_a_sqlite_database_moves_to_postgresql_with_every_row(folder: Path, postgres: str) -> None:
    with (
        fresh_database("sqlite", folder, postgres) as old,
        fresh_database("postgresql", folder, postgres, migrated=False) as new,
        Muster(old, folder) as muster,
    ):
        phone = fill(muster)
        muster.stop()
        settings = {name.upper(): "" for name in Settings.model_fields}
        done = run("to_postgres", new, folder=folder, **{**settings, "DATABASE_URL": old})
        assert done.returncode == 0, done.stderr
        assert rows(old) == rows(new)
        assert "not empty" in refusal(fork("to_postgres", new, DATABASE_URL=old))
        with Muster(new, folder, PUBLIC_URL=muster_url(muster)) as moved:
            assert moved.me(phone).status_code == 200
            listed = moved.client.get("/api/operations", headers=phone.bearer).json()
            assert {LARGEST, OPERATION["quantity"]} == {row["quantity"] for row in listed}
            added = moved.client.post("/api/operations", json=OPERATION, headers=phone.bearer)
            assert added.json()["id"] > max(row["id"] for row in listed)
            team = moved.client.post("/api/teams", json=TEAM, headers=phone.bearer)
            assert team.json()["id"] == 3  # 2 was deleted


def test_a_move_to_postgresql_begins_with_empty_files_after_one_that_was_interrupted(
    folder: Path, postgres: str
) -> None:
    with (
        fresh_database("sqlite", folder, postgres) as old,
        fresh_database("postgresql", folder, postgres) as new,
        engine_for(new).connect() as connection,
    ):
        size = text("SELECT pg_relation_size('audit_event')")
        rows = "SELECT gen_random_uuid(), now(), 'sign-in', '{}', '' FROM generate_series(1, 1000)"
        connection.execute(text(f"INSERT INTO audit_event (id, at, event, details, address) {rows}"))
        connection.rollback()
        assert connection.scalar(size) > 0
        connection.rollback()
        assert fork("to_postgres", new, DATABASE_URL=old).returncode == 0
        assert connection.scalar(size) == 0


def fill(muster: Muster) -> Tokens:
    """Insert at least one row into every table. Most resources take the examples of their POST."""
    admin = muster.admin().tokens()

    def post(path: str, body: Any, **headers: str) -> Any:
        answer = muster.client.post(f"/api{path}", json=body, headers={**admin.bearer, **headers})
        assert answer.status_code in {201, 202}, answer.text
        return answer.json()

    for (method, path), body in bodies(muster).items():
        if (method, path) not in BODIES and method == "POST" and "{" not in path:
            post(path.removeprefix("/api"), body)
    post("/operations", OPERATION, **{"Idempotency-Key": "once"})
    post("/operations", OPERATION | {"quantity": LARGEST})
    hero, team = (post(f"/{kind}", {"name": kind, **more}) for kind, more in PLACES)
    muster.client.put(f"/api/heroes/{hero['id']}/teams/{team['id']}", headers=admin.bearer).raise_for_status()
    deleted = post("/teams", TEAM)
    muster.client.delete(f"/api/teams/{deleted['id']}", headers=admin.bearer).raise_for_status()
    someone = muster.client.get("/api/users/me", headers=admin.bearer).json()["id"]
    post("/tasks", {**TASK, "assignee_id": someone})
    post("/chat/messages", MESSAGE)
    post("/jobs/statement", {})
    with Session(muster.engine) as session:
        session.add(Identity(user_id=UUID(someone), issuer="https://id.example", subject="ada", synced_at=utcnow()))
        session.commit()
    return admin


PLACES = (("heroes", {"secret_name": "Dive Wilson"}), ("teams", {"headquarters": "Sharp Tower"}))
TEAM = {"name": "Preventers", "headquarters": "Sharp Tower"}


def rows(url: str) -> dict[str, list[Any]]:
    """The rows of every table, each of which has at least one."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.connect() as connection:
        found = {table.name: sorted(map(repr, connection.execute(select(table)).all())) for table in all_tables()}
    empty = [name for name, all_rows in found.items() if not all_rows]
    assert not empty, f"make a row of {empty} in fill, in tests/scripts/test_copies.py"
    return found

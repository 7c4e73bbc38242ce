"""The daily purge: rows that nothing can ask for anymore are deleted once a day, and phones learn what they missed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, update
from sqlmodel import Session, SQLModel, col

from app.ledger.idempotency import IdempotentRequest, earlier_body, respond_once
from app.models.audit import AuditEvent
from app.models.base import uuid7_at
from app.models.job import Job
from app.models.operation import IdempotencyKey, Imported, Operation
from app.models.refresh_token import RefreshToken
from app.models.user import User
from tests.support.assertions import assert_problem
from tests.support.databases import fresh_database
from tests.support.ledgers import Ledger
from tests.support.oauth_clients import App
from tests.support.servers import Muster, Tokens, wait_for
from tests.support.sessions import assert_signed_out, session_of
from tests.support.workers import SERVICE_WITH_PROBES

LONG_AGO = datetime.now(UTC) - timedelta(days=181)  # REFRESH_ABSOLUTE_TTL is 180 days


@pytest.fixture(scope="module")
def muster(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    with fresh_database(kind, folder, postgres) as url, Muster(url, folder, app=SERVICE_WITH_PROBES) as muster:
        wait_for(lambda: purges(muster) == ["done"], what="the purge of the start")
        yield muster
        assert "ticket" not in muster.log


def purges(muster: Muster) -> list[str]:
    return [row.state for row in muster.sql("SELECT state FROM job WHERE kind = 'purge' ORDER BY id")]


def purge_again(muster: Muster) -> None:
    before = len(purges(muster))
    with muster.engine.begin() as connection:
        connection.execute(insert(Job).values(**Job(kind="purge", queue="default").model_dump()))
    wait_for(lambda: purges(muster)[before:] == ["done"], what="a purge")


def change(muster: Muster, table: type[SQLModel], *conditions: Any, **values: Any) -> None:
    with muster.engine.begin() as connection:
        connection.execute(update(table).where(*conditions).values(**values))


def ids(muster: Muster, column: Any, *conditions: Any) -> set[Any]:
    with muster.engine.begin() as connection:
        return set(connection.execute(select(col(column)).where(*conditions)).scalars())


@pytest.mark.slow
def test_any_number_of_processes_schedule_one_purge_a_day(muster: Muster) -> None:
    before = purges(muster)
    muster.stop()
    muster.start()
    other = Muster(muster.database_url, muster.folder, app=SERVICE_WITH_PROBES)
    with other:
        assert other.client.get("/health/ready").status_code == 200
    assert purges(muster) == before


def test_the_purge_deletes_audit_events_that_are_a_year_old(muster: Muster) -> None:
    year = datetime.now(UTC) - timedelta(days=365)
    rows = [AuditEvent(id=uuid7_at(year + timedelta(minutes=minutes)), event="sign-in") for minutes in (-5, 5)]
    with muster.engine.begin() as connection:
        connection.execute(insert(AuditEvent), [row.model_dump() for row in rows])
    purge_again(muster)
    assert ids(muster, AuditEvent.id) & {row.id for row in rows} == {rows[1].id}


@pytest.mark.slow
def test_the_purge_deletes_expired_sessions_keys_and_jobs_and_no_others(muster: Muster) -> None:
    ada, _bob = Ledger(muster), muster.register()
    idle, aged, live = (ada.account.tokens() for _ in range(3))
    rows = sorted(ids(muster, RefreshToken.id))[-3:]
    change(muster, RefreshToken, col(RefreshToken.id) == rows[0], idle_expires_at=LONG_AGO)
    change(muster, RefreshToken, col(RefreshToken.id) == rows[1], absolute_expires_at=LONG_AGO)
    app = App(muster)
    unused, redeemed, fresh = app.codes(ada.account, 3)
    by_code = Tokens(app.exchange(redeemed).json())
    change(muster, RefreshToken, col(RefreshToken.id) == session_of(unused), idle_expires_at=datetime.now(UTC))
    for key in ("old", "new"):
        ada.post(headers={"Idempotency-Key": key})
    change(muster, IdempotencyKey, col(IdempotencyKey.key) == "old", created_at=LONG_AGO)
    wait_for(lambda: not ids(muster, Job.state) & {"waiting", "running"}, what="the end of all jobs")
    done = sorted(ids(muster, Job.id, col(Job.kind) == "mail"))
    change(muster, Job, col(Job.id) == done[0], finished_at=LONG_AGO)

    purge_again(muster)
    assert ids(muster, RefreshToken.id) & set(rows) == {rows[2]}
    assert_signed_out(muster, idle, aged)
    assert ids(muster, RefreshToken.id) & set(map(session_of, (unused, redeemed, fresh))) == {
        session_of(redeemed),
        session_of(fresh),
    }
    assert [muster.me(tokens).status_code for tokens in (live, by_code)] == [200, 200]
    assert ids(muster, IdempotencyKey.key, col(IdempotencyKey.owner_id) == UUID(ada.owner_id)) == {"new"}
    assert done[0] not in ids(muster, Job.id)
    assert set(done[1:]) <= ids(muster, Job.id)


@pytest.mark.slow
def test_the_purge_skips_an_expired_key_that_is_used_again(muster: Muster, kind: str) -> None:
    """The key is used again before the purge or, on PostgreSQL, which has more than one writer, during it."""
    ada = Ledger(muster)
    ada.post(headers={"Idempotency-Key": "again"})
    change(muster, IdempotencyKey, col(IdempotencyKey.owner_id) == UUID(ada.owner_id), created_at=LONG_AGO)
    again = IdempotentRequest(UUID(ada.owner_id), "again", "importOperations", b"", datetime.now(UTC))

    def respond(_: Session) -> Imported:
        if kind == "postgresql":
            purge_again(muster)
        return Imported(created=0, revision=0)

    with Session(muster.engine) as session:
        answered = respond_once(session, again, respond)
        session.commit()
        purge_again(muster)
        assert earlier_body(session, again) == answered


@pytest.mark.slow
def test_purging_tombstones_raises_the_floor_and_older_copies_need_a_resync(muster: Muster) -> None:
    ada, bob = Ledger(muster), Ledger(muster)
    kept, old, young = (ada.add()["id"] for _ in range(3))  # revisions 1 to 3
    before = bob.add()["id"]
    for operation_id in (old, young):
        assert ada.delete(operation_id).status_code == 204  # revisions 4 and 5
    change(muster, Operation, col(Operation.id) == old, deleted_at=LONG_AGO)

    purge_again(muster)
    assert ids(muster, Operation.id) & {kept, old, young, before} == {kept, young, before}
    assert floor(muster, ada) == 4
    assert floor(muster, bob) == 0
    assert_problem(ada.get("changes", since=3), 410, "resync-required")
    assert [change["id"] for change in ada.get("changes", since=4).json()["changes"]] == [young]
    assert [change["id"] for change in ada.get("changes", full=True).json()["changes"]] == [kept, young]
    assert bob.get("changes", since=1).status_code == 200

    purge_again(muster)
    assert floor(muster, ada) == 4


def test_the_purge_deletes_the_rows_that_a_killed_import_has_staged(muster: Muster) -> None:
    ada = Ledger(muster)
    kept, lately, old = (ada.add()["id"] for _ in range(3))
    for operation_id in (lately, old):
        change(muster, Operation, col(Operation.id) == operation_id, revision=-operation_id)
    change(muster, Operation, col(Operation.id) == old, created_at=datetime.now(UTC) - timedelta(hours=2))
    purge_again(muster)
    assert ids(muster, Operation.id) & {kept, lately, old} == {kept, lately}


def test_the_highest_id_is_never_issued_again(muster: Muster) -> None:
    ada = Ledger(muster)
    ids_before = [ada.add()["id"] for _ in range(3)]
    for operation_id in ids_before:
        ada.delete(operation_id)
    change(muster, Operation, col(Operation.owner_id) == UUID(ada.owner_id), deleted_at=LONG_AGO)
    purge_again(muster)
    assert ids(muster, Operation.id) & set(ids_before) == set()
    assert ada.add()["id"] > ids_before[-1]
    assert floor(muster, ada) == 6


def floor(muster: Muster, ledger: Ledger) -> int:
    with muster.engine.begin() as connection:
        found = select(col(User.operations_floor)).where(col(User.id) == UUID(ledger.owner_id))
        return int(connection.execute(found).scalar_one())

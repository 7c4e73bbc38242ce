"""Jobs without Redis, in the service's own process: who sees them, what remains of them, and what survives a kill."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from httpx import Response
from sqlalchemy import insert
from sqlmodel import Session, col, select

from app.jobs.queue import AT_ONCE, BEHIND_OTHERS
from app.models.base import utcnow
from app.models.job import Job
from tests.support.assertions import assert_problem
from tests.support.connections import answer_on, is_listening, raw_connection
from tests.support.jobs import OwnJobs
from tests.support.resources import pages
from tests.support.servers import PASSWORD, STARTUP, Muster, Tokens, text_of, wait_for
from tests.support.sessions import is_refused, refreshed
from tests.support.workers import SERVICE_WITH_PROBES, service_with_probes

Serve = Callable[..., Muster]
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def muster(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    with service_with_probes(kind, folder, postgres) as served:
        yield served


@pytest.fixture
def own(muster: Muster) -> OwnJobs:
    return OwnJobs(muster)


@pytest.fixture
def registered(muster: Muster) -> OwnJobs:
    """The jobs of a new account, to which a mail is on its way."""
    return OwnJobs(muster, muster.register())


def job_ids(muster: Muster, tokens: Tokens, **query: str) -> list[str]:
    answer = muster.client.get("/api/jobs", params={"limit": "200", **query}, headers=tokens.bearer)
    assert answer.status_code == 200
    return [job["id"] for job in answer.json()]


# ---- Visibility ----


@pytest.mark.slow
def test_a_job_is_visible_to_its_owner_and_to_callers_with_users_read(muster: Muster, own: OwnJobs) -> None:
    first, second = own.start(), own.start()
    assert job_ids(muster, own.tokens) == [second, first]
    stranger, admin = muster.new_account().tokens(), muster.admin().tokens()
    assert job_ids(muster, stranger) == []
    owner = {"owner_id": str(own.owner_id)}
    assert set(job_ids(muster, admin)) >= set(job_ids(muster, admin, **owner)) >= {first, second}
    assert job_ids(muster, admin, owner_id=str(uuid4())) == job_ids(muster, stranger, **owner) == []
    for method, path in (("GET", ""), ("GET", "/result"), ("DELETE", "")):
        answers = [
            muster.client.request(method, f"/api/jobs/{job_id}{path}", headers=stranger.bearer)
            for job_id in (first, uuid4())
        ]
        for answer in answers:
            assert_problem(answer, 404, "job-not-found")
        assert answers[0].json() == answers[1].json()
    assert muster.client.get(f"/api/jobs/{first}", headers=admin.bearer).json()["owner_id"] == str(own.owner_id)


def test_the_services_own_jobs_are_shown_to_admins_alone(muster: Muster, registered: OwnJobs) -> None:
    muster.mails(registered.account.email)
    admin = muster.admin().tokens()
    kinds = {job["kind"] for job in muster.client.get("/api/jobs?limit=200", headers=admin.bearer).json()}
    assert kinds >= {"mail", "purge"}
    mail = muster.sql("SELECT id FROM job WHERE kind = 'mail'")[0].id
    assert_problem(muster.client.delete(f"/api/jobs/{mail}", headers=registered.tokens.bearer), 404, "job-not-found")


def test_the_list_of_jobs_has_pages_and_a_filter_by_state(muster: Muster, own: OwnJobs) -> None:
    ids = [own.start() for _ in range(3)][::-1]
    assert [[job["id"] for job in page] for page in pages(muster, own.tokens, "/jobs?limit=2")] == [ids[:2], ids[2:]]
    for job_id in ids:
        own.wait(job_id)
    assert job_ids(muster, own.tokens, state="done") == ids
    assert job_ids(muster, own.tokens, state="failed") == []


@pytest.mark.slow
def test_a_running_job_reports_its_progress_and_can_be_canceled(muster: Muster, own: OwnJobs, tmp_path: Path) -> None:
    running = own.write(until=str(tmp_path / "never"))
    own.wait(running, "running")
    waiting = own.start(**{"from": "2026-01-01"})
    wait_for(lambda: own.read(running)["progress"] == 0.5, what="progress")
    assert_problem(muster.client.get(f"/api/jobs/{running}/result", headers=own.tokens.bearer), 404, "result-not-found")
    admin = muster.admin().tokens()
    for job_id, tokens in ((waiting, own.tokens), (running, admin)):
        assert muster.client.delete(f"/api/jobs/{job_id}", headers=tokens.bearer).status_code == 204
    last = own.write()
    own.wait(last)
    assert {own.read(job_id)["state"] for job_id in (running, waiting)} == {"cancelled"}
    assert own.read(waiting)["from"] == "2026-01-01T00:00:00.000000Z", "its period is still shown"
    assert [effect for effect in own.effects() if effect in {running, waiting, last}] == [last]


# ---- Starting again ----


def retry(muster: Muster, tokens: Tokens, job_id: object) -> Response:
    return muster.client.post(f"/api/jobs/{job_id}/retry", headers=tokens.bearer)


@pytest.mark.slow
def test_a_job_that_failed_or_was_canceled_starts_again_with_fresh_attempts(
    muster: Muster, own: OwnJobs, tmp_path: Path
) -> None:
    stranger, admin = muster.new_account().tokens(), muster.admin().tokens()
    running = own.write(until=str(tmp_path / "gate"))
    own.wait(running, "running")
    assert_problem(retry(muster, own.tokens, running), 409, "job-not-ended")
    assert_problem(retry(muster, stranger, running), 404, "job-not-found")
    assert muster.client.delete(f"/api/jobs/{running}", headers=own.tokens.bearer).status_code == 204
    answer = retry(muster, own.tokens, running)  # while its first run has not noticed yet
    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/jobs/{running}")
    assert (answer.json()["state"], answer.json()["attempts"]) == ("waiting", 0)
    (tmp_path / "gate").touch()
    assert own.wait(running)["attempts"] == 1

    failed = own.write(state="failed", attempts=4)
    assert_problem(retry(muster, stranger, failed), 404, "job-not-found")
    assert retry(muster, admin, failed).status_code == 202
    assert (own.wait(failed)["attempts"], own.read(failed)["error"]) == (1, None)
    assert_problem(retry(muster, admin, failed), 409, "job-not-ended")
    assert own.effects().count(running) == own.effects().count(failed) == 1

    events = muster.client.get("/api/audit?event=job-retried", headers=admin.bearer).json()
    recorded = [
        (event["user_id"], event["details"]) for event in events if event["details"]["job_id"] in {running, failed}
    ]
    assert recorded == [(str(own.owner_id), {"job_id": failed, "kind": "statement"})]


def test_a_mail_that_was_given_up_is_sent_when_an_admin_starts_it_again(muster: Muster) -> None:
    """A mail to an address without an owner: nobody else knows the address, so a failed job keeps it."""
    account, admin = muster.new_account(), muster.admin().tokens()
    mail = Job(kind="mail", queue="high", state="running", attempts=8, started_at=utcnow(), heartbeat_at=LONG_AGO)
    mail.arguments = {"template": "reset", "to": account.email}
    with muster.engine.begin() as connection:
        connection.execute(insert(Job).values(**mail.model_dump()))
    path = f"/api/jobs/{mail.id}"
    given_up = wait_for(
        lambda: job if (job := muster.client.get(path, headers=admin.bearer).json())["state"] == "failed" else None,
        what="its failure",
    )
    assert given_up["error"].startswith("The attempt failed (ticket ")
    assert retry(muster, admin, mail.id).status_code == 202
    assert len(muster.mails(account.email)) == 1


# ---- Deletion, and mails ----


def test_deleting_the_account_deletes_its_jobs(muster: Muster, own: OwnJobs) -> None:
    own.wait(own.start())
    body = {"current_password": PASSWORD}
    answer = muster.client.request("DELETE", "/api/users/me", json=body, headers=own.tokens.bearer)
    assert answer.status_code == 204
    owner = own.owner_id.hex if muster.on_sqlite else own.owner_id
    assert muster.sql("SELECT id FROM job WHERE owner_id = :owner", owner=owner) == []


def test_no_address_stays_in_the_row_of_a_mail_that_was_sent(muster: Muster, registered: OwnJobs) -> None:
    for email in (registered.account.email, f"{uuid4().hex}@example.com"):
        assert muster.client.post("/api/auth/forgot-password", json={"email": email}).status_code == 202
    muster.mails(registered.account.email, subject="Reset your password")

    def arguments() -> list[str]:
        return [str(row.arguments) for row in muster.sql("SELECT arguments FROM job WHERE kind = 'mail'")]

    wait_for(lambda: "@" not in "".join(arguments()), what="the addresses' end")
    assert any("reset" in each for each in arguments())


def test_a_mail_that_is_sent_again_has_the_same_message_id(muster: Muster, registered: OwnJobs) -> None:
    mail = muster.mails(registered.account.email)[0]
    job_id = str(mail["Message-ID"])[1:].partition("@")[0]
    name = job_id.replace("-", "") if muster.on_sqlite else job_id
    muster.sql("UPDATE job SET state = 'waiting', finished_at = NULL, sent_at = NULL WHERE id = :id", id=name)
    wait_for(lambda: muster.sql("SELECT attempts FROM job WHERE id = :id", id=name)[0].attempts == 2, what="a second")
    wait_for(lambda: muster.sql("SELECT state FROM job WHERE id = :id", id=name)[0].state == "done", what="its end")
    again = muster.mails(registered.account.email)
    assert [mail["Message-ID"] for mail in again] == [f"<{job_id}@muster>"]  # in the outbox it is even the same file


LABEL = "<b>phone</b> v1.2 https:/\x07/evil.example me@evil.example www.evil.example evil\u3002example"


def theft_mail(own: OwnJobs) -> EmailMessage:
    first = own.account.sign_in(device=LABEL)
    refreshed(own.muster, refreshed(own.muster, first))
    assert is_refused(own.muster.refresh(first.refresh))
    return own.muster.mails(own.account.email, subject="A device was signed out")[0]


def test_a_device_name_is_escaped_in_mail_and_loses_its_links(own: OwnJobs) -> None:
    own.verify()
    mail = theft_mail(own)
    assert "so we signed it out: <b>phone</b> v1.2." in text_of(mail).replace("\n", " ")
    assert "&lt;b&gt;phone&lt;/b&gt;" in text_of(mail, "html")


def test_mail_to_an_unverified_address_contains_no_text_of_a_person(own: OwnJobs) -> None:
    mail = theft_mail(own)
    assert "so we signed it out: a device." in text_of(mail).replace("\n", " ")
    assert "phone" not in text_of(mail, "html")


def test_many_mails_of_one_person_let_those_of_others_overtake_them(muster: Muster, registered: OwnJobs) -> None:
    muster.mails(registered.account.email)
    later = utcnow() + timedelta(hours=1)
    with Session(muster.engine) as session:
        session.add_all(
            Job(kind="mail", queue="high", owner_id=registered.owner_id, arguments={"template": "reset"}, due_at=later)
            for _ in range(AT_ONCE)
        )
        session.commit()
    body = {"email": f"{uuid4().hex}@example.com", "current_password": PASSWORD}
    assert muster.client.put("/api/users/me/email", json=body, headers=registered.tokens.bearer).status_code == 202
    muster.mails(muster.register().email)
    with Session(muster.engine) as session:
        newest = session.exec(
            select(Job).where(Job.owner_id == registered.owner_id).order_by(col(Job.id).desc()).limit(2)
        ).all()
    waits = [(job.due_at - job.created_at) // BEHIND_OTHERS for job in newest]
    assert ([job.state for job in newest], waits) == (["waiting"] * 2, [2, 1])


# ---- Kills and stops ----


@pytest.mark.slow
def test_waiting_and_running_jobs_survive_a_killed_service(database_url: str, folder: Path, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    with Muster(database_url, folder, app=SERVICE_WITH_PROBES) as muster:
        own = OwnJobs(muster)
        running, waiting = own.write(until=str(go_on)), own.write()
        own.wait(running, "running")
        muster.kill()
        go_on.touch()
        muster.start()
        assert own.wait(waiting)["attempts"] == 1
        assert own.wait(running)["attempts"] == 2
        assert sorted(own.effects()) == sorted([running, waiting])


@pytest.mark.slow
def test_a_stopping_service_releases_its_running_jobs(muster: Muster, own: OwnJobs, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    job_id = own.write(until=str(go_on))
    own.wait(job_id, "running")
    stop_by_sigterm_and_ctrl_c(muster)
    rows = muster.sql("SELECT state, attempts FROM job WHERE id = :id", id=UUID(job_id).hex)
    assert [tuple(row) for row in rows] == [("waiting", 0)]
    go_on.touch()
    muster.start()
    assert own.wait(job_id)["attempts"] == 1
    assert own.effects().count(job_id) == 1


def stop_by_sigterm_and_ctrl_c(muster: Muster) -> None:
    """Send both signals: the second would make uvicorn exit at once, without closing anything."""
    assert muster.process is not None
    with raw_connection(muster) as idle:  # it is waited for, so there is time for both
        answer_on(idle)
        muster.process.terminate()
        wait_for(lambda: not is_listening(muster), what="the first to be handled")
        os.kill(muster.process.pid, signal.SIGINT)
        muster.process.wait(STARTUP)
    assert "Traceback" not in muster.log
    muster.stop()


def test_a_request_that_is_rolled_back_leaves_no_job(muster: Muster, registered: OwnJobs) -> None:
    body = {"email": registered.account.email, "password": PASSWORD}
    assert muster.client.post("/api/auth/register", json=body).status_code == 409
    registered.wait(registered.start())
    assert len(muster.mails(registered.account.email)) == 1

"""The archive of everything that is a person's own: complete, without secrets, and theirs alone."""

import csv
import json
import re
from io import BytesIO, StringIO
from typing import Any
from zipfile import ZipFile

import httpx
import pytest

from app.jobs.export import exported_lists
from app.models.base import all_tables
from tests.support.assertions import assert_problem
from tests.support.jobs import OwnJobs
from tests.support.ledgers import OPERATION
from tests.support.servers import PASSWORD, Muster, Tokens, hash_of

LISTS = ("account", *exported_lists(), "operations")
# Tables that name an account and are in no list, and why.
NOT_LISTED = {
    "operation": "in operations.csv, as the import reads it",
    "idempotency_key": "answers to requests, whose operations are listed",
    "task_history": "of tasks, and about other people too",
}


def export(own: OwnJobs, tokens: Tokens | None = None) -> httpx.Response:
    return own.muster.client.post("/api/jobs/export", headers=(tokens or own.tokens).bearer)


def download(own: OwnJobs, job_id: str, tokens: Tokens | None = None) -> httpx.Response:
    return own.muster.client.get(f"/api/jobs/{job_id}/result", headers=(tokens or own.tokens).bearer)


@pytest.fixture
def own(muster: Muster) -> OwnJobs:
    """Somebody with something in every list, and somebody else beside them."""
    own = OwnJobs(muster, muster.register())
    other = muster.new_account()
    for who, tokens in ((str(own.owner_id), own.tokens), (None, other.tokens())):
        kept, deleted = [
            muster.client.post("/api/operations", json=OPERATION, headers=tokens.bearer).json() for _ in range(2)
        ]
        assert kept["id"] != deleted["id"]
        muster.client.delete(f"/api/operations/{deleted['id']}", headers=tokens.bearer)
        name = "mine" if who else "theirs"
        for title, assignee in ((f"{name}, for nobody", None), (f"{name}, for the first", str(own.owner_id))):
            body = {"title": title, "assignee_id": assignee}
            assert muster.client.post("/api/tasks", json=body, headers=tokens.bearer).status_code == 201
        message = {"text": f"=1+1 is {name}", "room": f"export-{own.owner_id.hex[-8:]}"}
        assert muster.client.post("/api/chat/messages", json=message, headers=tokens.bearer).status_code == 201
    return own


@pytest.mark.slow
def test_an_archive_holds_everything_of_its_owner_and_no_secret(own: OwnJobs) -> None:
    tablet = own.account.sign_in(device="a tablet")
    admin, path = own.muster.admin().tokens(), f"/api/users/{own.owner_id}"
    assert own.muster.client.patch(path, json={"name": "Ada"}, headers=admin.bearer).status_code == 200
    started = export(own)
    assert (started.status_code, started.json()["kind"]) == (202, "export")
    job_id = str(started.json()["id"])
    assert own.wait(job_id)["result"] == f"/api/jobs/{job_id}/result"
    answer = download(own, job_id)
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="muster.zip"'
    with ZipFile(BytesIO(answer.content)) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    assert files.keys() == {"README.txt", *(f"{name}.{form}" for name in LISTS for form in ("json", "csv"))}
    lists: dict[str, list[dict[str, Any]]] = {name: json.loads(files[f"{name}.json"]) for name in LISTS}
    tables = {name: list(csv.DictReader(StringIO(files[f"{name}.csv"], newline=""))) for name in LISTS}
    assert {name: len(rows) for name, rows in lists.items()} == {name: len(rows) for name, rows in tables.items()}
    assert lists["account"] == [own.muster.me(own.tokens).json()]
    assert {session["device"] for session in lists["sessions"]} >= {"a tablet"}
    assert "127.0.0.1" in {event["address"] for event in lists["events"] if event["event"] == "sign-in"}
    assert {event["address"] for event in lists["events"] if event["event"] == "account-renamed"} == {""}, "by an admin"
    assert {task["title"] for task in lists["tasks"]} == {
        "mine, for nobody",
        "mine, for the first",
        "theirs, for the first",
    }
    assert [message["text"] for message in lists["messages"]] == ["=1+1 is mine"]
    assert [row["text"] for row in tables["messages"]] == ["'=1+1 is mine"]
    assert [job["kind"] for job in lists["jobs"]] == ["export"]
    current = own.muster.client.get("/api/operations", headers=own.tokens.bearer).json()
    assert lists["operations"] == current
    everything = "".join(files.values())
    times = set(re.findall(r"\d{4}-\d\d-\d\dT[^\",\r\n]*", everything))
    assert len(times) > 5
    assert {time for time in times if not re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", time)} == set()
    for secret in ("secret", "hash", PASSWORD, hash_of(PASSWORD), tablet.refresh, tablet.access):
        assert secret not in everything.removeprefix(files["README.txt"]), secret
    assert own.account.email in files["README.txt"]

    taken_over = own.muster.new_account().tokens()
    imported = own.muster.client.post(
        "/api/operations/import",
        content=files["operations.csv"],
        headers={**taken_over.bearer, "Content-Type": "text/csv"},
    )
    assert imported.json()["created"] == len(current) == 1


@pytest.mark.one_database
def test_every_table_that_names_an_account_is_in_the_archive() -> None:
    listed = {each.table.__tablename__ for each in exported_lists().values()}
    for table in all_tables():
        of_account = {"owner_id", "user_id"} & {*table.columns.keys()} or any(
            key.column.table.name == "user" for key in table.foreign_keys
        )
        assert not of_account or (table.name in listed) != (table.name in NOT_LISTED), (
            f"What people have in the table {table.name} is missing from their archive. Add a line for it to _LISTS in "
            f"app/jobs/export.py, or say in NOT_LISTED, in {__file__}, why it does not belong there."
        )


@pytest.mark.slow
def test_an_archive_replaces_the_one_before_and_nobody_else_gets_it(own: OwnJobs) -> None:
    first = str(export(own).json()["id"])
    own.wait(first)
    second = str(export(own).json()["id"])
    own.wait(second)
    assert [job["id"] for job in own.all() if job["kind"] == "export"] == [second]
    by_kind = own.muster.client.get("/api/jobs?kind=statement", headers=own.tokens.bearer)
    assert by_kind.json() == []
    assert_problem(download(own, first), 404, "job-not-found")
    admin, stranger = own.muster.admin().tokens(), own.muster.new_account().tokens()
    assert_problem(download(own, second, admin), 404, "result-not-found")
    assert_problem(download(own, second, stranger), 404, "job-not-found")
    narrow = own.account.sign_in(scope="me jobs operations:read")
    assert_problem(export(own, narrow), 403, "insufficient-scope")
    assert_problem(download(own, second, narrow), 403, "insufficient-scope")

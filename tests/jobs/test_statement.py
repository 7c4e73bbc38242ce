"""Statements: the operations of a period as a table and as a document, to download and by mail."""

import csv
import re
from datetime import UTC, datetime
from html import unescape
from io import StringIO
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.jobs.export import BATCH
from app.ledger.statement import CSV, PAGE, make_statement, read_file
from app.models.operation import OperationPublic, Period
from tests.support.assertions import assert_problem
from tests.support.jobs import OwnJobs
from tests.support.ledgers import Ledger
from tests.support.servers import Muster

OPERATIONS: list[dict[str, Any]] = [
    {"date": "2026-01-31T23:59:59Z", "type": "buy", "instrument_type": "BTC", "quantity": "0.1"},
    {"date": "2026-02-01T00:00:00Z", "type": "buy", "instrument_type": "BTC", "quantity": "0.2"},
    {"date": "2026-02-28T12:00:00Z", "type": "<i>sell</i>", "instrument_type": None, "quantity": "999999999999.1"},
    {"date": "2026-03-01T00:00:00Z", "type": "buy", "instrument_type": "BTC", "quantity": "5"},
]


@pytest.fixture
def own(muster: Muster) -> OwnJobs:
    """Somebody with operations."""
    ledger, own = Ledger(muster), OwnJobs(muster)
    ledger.tokens = own.tokens
    for operation in OPERATIONS:
        ledger.add(**operation)
    gone = ledger.add(date="2026-02-02T00:00:00Z")
    assert ledger.delete(gone["id"]).status_code == 204
    return own


def result(own: OwnJobs, job_id: str, headers: dict[str, str] | None = None, **query: str) -> httpx.Response:
    path = own.wait(job_id)["result"]
    sent = {**own.tokens.bearer, **(headers or {})}
    answer = own.muster.client.get(path, params=query, headers=sent)
    assert answer.status_code == 200
    return answer


def test_the_table_holds_the_operations_of_the_period_newest_first(own: OwnJobs) -> None:
    answer = result(own, own.start(**{"from": "2026-02-01", "to": "2026-03-01T00:00:00Z"}))
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(StringIO(answer.text)))
    assert [(row["type"], row["quantity"]) for row in rows] == [("<i>sell</i>", "999999999999.1"), ("buy", "0.2")]
    everything = result(own, own.start()).text
    exported = own.muster.client.get("/api/operations/export", headers=own.tokens.bearer).text
    assert everything == exported


def test_the_document_names_its_owner_has_totals_holdings_and_a_chart_and_runs_no_script(own: OwnJobs) -> None:
    own.muster.client.patch("/api/users/me", json={"name": "Ada <b>"}, headers=own.tokens.bearer)
    job_id = own.start(**{"from": "2026-01-01", "to": "2027-01-01"})
    answer = result(own, job_id, format="html")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    page = answer.text
    assert {"Ada &lt;b&gt;", "&lt;i&gt;sell&lt;/i&gt;"} <= set(re.findall(r"<bdi>(.*?)</bdi>", page))
    assert not re.search(r"<i>|<script|<link|@import|url\(|src=|href=", page), "nothing to run, and nothing to load"
    assert ">2026 (UTC)<" in page
    rows = [re.sub(r"</t[dh]>", " ", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    texts = [unescape(re.sub("<[^>]*>", "", row)).split() for row in rows]
    totals = [["<i>sell</i>", "–", "1", "999999999999.1"], ["buy", "btc", "3", "5.3"]]  # noqa: RUF001  # as it is printed
    holdings = [["string", "btc", "5.3"]]
    newest = [["2026-03-01", "00:00", "buy", "btc", "string", "5"]]
    assert [row for row in texts if row in [*totals, *holdings, *newest]] == [*totals, *holdings, *newest]
    assert re.findall(r"<title>(.*: [1-9])</title>", page) == ["2026-01: 1", "2026-02: 2", "2026-03: 1"]
    assert result(own, job_id, {"Accept": "text/html,*/*;q=0.8"}).headers["content-type"].startswith("text/csv")


def test_long_tables_of_the_document_are_truncated_and_say_so() -> None:
    now, mine = datetime(2026, 1, 1, tzinfo=UTC), {"id": 1, "owner_id": uuid4(), "revision": 1}
    common = {"type": "buy", "figi": "X", "quantity": 1, "date": "2026-01-01T00:00:00Z"}
    operation = OperationPublic.model_validate({**common, **mine, "created_at": now, "updated_at": now})
    batches = [[operation.model_copy(update={"figi": f"F{n}"}) for n in range(600)] for _ in range(2)]
    batches.append([operation.model_copy(update={"figi": f"G{n}"}) for n in range(600)])
    archive, facts = make_statement(batches, Period(), "Ada")
    page = read_file(archive, PAGE).decode()
    assert facts["count"] == 1800
    assert "The newest 1,000 of 1,800. The CSV file of this statement has every operation." in page
    assert page.count("Only the first 1,000 are listed.") == 1, "of the holdings"
    assert page.count("<tr><td>") == 1000 + 1000 + 1
    assert re.search(r"F599<.*>2</td>", page)
    assert read_file(archive, CSV).count(b"\n") == 1801


def test_a_statement_of_an_empty_period_is_generated(muster: Muster) -> None:
    own = OwnJobs(muster)
    job_id = own.start(to="2000-01-01")
    assert result(own, job_id).text.count("\n") == 1
    assert "No operations in this period." in result(own, job_id, format="html").text


def test_a_statement_is_mailed_on_request_with_both_files(own: OwnJobs) -> None:
    own.verify()
    job_id = own.start(mail=True)
    mail = own.muster.mails(own.account.email, subject="Your statement")[0]
    files = {part.get_filename(): part.get_content() for part in mail.iter_attachments()}
    assert {"statement.csv", "statement.html"} == files.keys()
    assert files["statement.csv"].replace("\r\n", "\n") == result(own, job_id).text.replace("\r\n", "\n")


def test_the_job_says_what_its_statement_covers(own: OwnJobs) -> None:
    job_id = own.start(**{"from": "2026-02-01", "to": "2026-03-01"})
    table = result(own, job_id)
    job = next(each for each in own.all() if each["id"] == job_id)
    assert (job["from"], job["to"]) == ("2026-02-01T00:00:00.000000Z", "2026-03-01T00:00:00.000000Z")
    assert (job["count"], job["size"]) == (2, len(table.content))


@pytest.mark.one_database
@pytest.mark.parametrize("end", ["2026-01-31", "2026-02-01"])
def test_a_period_that_ends_before_it_begins_is_refused_with_an_error_at_its_end(own: OwnJobs, end: str) -> None:
    period, headers = {"from": "2026-02-01", "to": end}, own.tokens.bearer
    started = own.muster.client.post("/api/jobs/statement", json=period, headers=headers)
    listed = own.muster.client.get("/api/operations", params=period, headers=headers)
    for answer, where in ((started, "body"), (listed, "query")):
        assert_problem(answer, 422, "invalid")
        (mistake,) = answer.json()["errors"]
        assert (mistake["loc"], mistake["msg"]) == ([where, "to"], "Choose an end after the start.")


@pytest.mark.one_database
@pytest.mark.parametrize(
    "body",
    [{"from": "yesterday"}, {"since": "2026-01-01"}, {"mail": "yes"}, []],
    ids=["not a time", "another name", "not a boolean", "a list"],
)
def test_an_invalid_period_is_rejected(own: OwnJobs, body: object) -> None:
    answer = own.muster.client.post("/api/jobs/statement", json=body, headers=own.tokens.bearer)
    assert_problem(answer, 422, "invalid")


@pytest.mark.one_database
def test_an_unverified_address_gets_no_statement(own: OwnJobs) -> None:
    answer = own.muster.client.post("/api/jobs/statement", json={"mail": True}, headers=own.tokens.bearer)
    assert_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["loc"] == ["body", "mail"]


def test_a_statement_requires_the_scope_to_read_operations(own: OwnJobs) -> None:
    job = own.start()
    narrow = own.account.sign_in(scope="jobs").bearer
    for method, path in (("POST", "/api/jobs/statement"), ("GET", f"/api/jobs/{job}/result")):
        answer = own.muster.client.request(method, path, json={}, headers=narrow)
        assert (answer.status_code, answer.json().get("scope")) == (403, "operations:read")


@pytest.mark.slow
def test_a_long_statement_is_generated_in_batches(muster: Muster) -> None:
    own, count = OwnJobs(muster), 3 * BATCH + 1
    lines = ["type,figi,quantity,date", *(f"buy,X{n},1,2026-01-01T00:00:00Z" for n in range(count))]
    headers = {**own.tokens.bearer, "Content-Type": "text/csv"}
    answer = muster.client.post("/api/operations/import", content="\n".join(lines), headers=headers)
    assert answer.status_code == 201
    assert result(own, own.start()).text.count("\n") == 1 + count

"""CSV export and import: each reads what the other writes, any number of rows, all or nothing, and no formulas."""

import csv
import gzip
import socket
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from http.client import HTTPConnection, IncompleteRead
from io import StringIO
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from time import process_time, sleep
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from app.core.errors import Invalid
from app.ledger.csv_format import decode
from app.ledger.imports import BATCH, by_date
from app.models.types import format_amount
from app.services import IMPORTS_OF_ONE, MAX_IMPORTS
from tests.support.assertions import assert_problem
from tests.support.concurrency import blocked, wait_until_blocked
from tests.support.databases import fresh_database
from tests.support.hostile import head
from tests.support.ledgers import FIELDS, OPERATION, Ledger
from tests.support.metrics import number, scrape
from tests.support.servers import STARTUP, Muster, wait_for
from tests.support.sockets import slow_connection

HEADER = "type,instrument_type,figi,quantity,date"
ROW = "sell,btc,string,10,2023-10-26T08:29:31.139Z"
MANY = 8 * BATCH
LONG = 20 * BATCH  # long enough to do something in the middle of its import, also where that is slow


@pytest.fixture
def ada(muster: Muster) -> Ledger:
    return Ledger(muster)


def import_csv(ledger: Ledger, content: str | bytes, **headers: str) -> httpx.Response:
    return ledger.call("POST", "import", {"Content-Type": "text/csv", **headers}, content=content)


def fields(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in FIELDS} for row in rows]


# ---- Export and import ----


def test_an_empty_ledger_is_exported_as_a_header_alone(ada: Ledger) -> None:
    answer = ada.get("export")
    assert (answer.status_code, answer.text) == (200, f"{HEADER}\r\n")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="operations.csv"'
    assert answer.headers["cache-control"] == "private, no-cache"
    assert import_csv(ada, answer.content).json() == {"created": 0, "revision": 0}


def test_an_export_is_imported_as_new_operations_whatever_its_text(ada: Ledger) -> None:
    texts = [
        "=1+2",
        "+1",
        "-1",
        "@sum",
        "'",
        "''",
        "'=1",
        "''=1",
        "a,b",
        'a"b',
        '"',
        ";",
        " é漢👩\u200d👧",
        "'quoted'",
        "a'b",
    ]
    for cell in texts:
        ada.add(figi=cell, type=cell, instrument_type=None if cell == '"' else cell, quantity="0.00000001")
    exported = ada.get("export")
    cells = [cell for line in csv.reader(StringIO(exported.text, newline="")) for cell in line]
    assert [cell for cell in cells if cell[:1] in {"=", "+", "-", "@", "\t", "\r"}] == []
    other = Ledger(ada.muster)
    answer = import_csv(other, exported.content)
    assert (answer.status_code, answer.json()) == (201, {"created": len(texts), "revision": len(texts)})
    assert fields(other.all())[::-1] == fields(ada.all())
    assert {row["id"] for row in other.all()} & {row["id"] for row in ada.all()} == set()
    changes = other.get("changes", since=0).json()["changes"]
    assert [change["revision"] for change in changes] == list(range(1, len(texts) + 1))


def test_columns_may_be_in_any_order_and_a_byte_order_mark_and_plain_line_breaks_are_accepted(ada: Ledger) -> None:
    body = '\ufeffdate,quantity,figi,type\n"2024-01-01T00:00:00+01:00",1e1,"a ""b""\tc"," Buy "\n\n'
    assert_problem(import_csv(ada, body.encode()), 422, "invalid")  # a tab inside is not text
    assert import_csv(ada, body.replace("\t", "").encode()).json() == {"created": 1, "revision": 1}
    assert fields(ada.all()) == [
        {
            "type": "buy",
            "instrument_type": None,
            "figi": 'a "b"c',
            "quantity": "10",
            "date": "2023-12-31T23:00:00.000000Z",
        }
    ]


def test_an_export_accepts_the_filters_of_the_list(ada: Ledger) -> None:
    ada.add(figi="one", type="buy")
    ada.add(figi="two")
    lines = ada.get("export", type=" BUY ").text.splitlines()
    assert [line.split(",")[2] for line in lines] == ["figi", "one"]


# ---- Files of spreadsheets ----

CASES = {
    "excel": (
        b"\xef\xbb\xbftype;instrument_type;figi;quantity;date\r\nbuy;;X;1,5;@\r\nbuy;;X;1.234,5;@\r\n",
        ["1.5", "1234.5"],
    ),
    "excel without doubt": (
        b"type;figi;quantity;date\nbuy;X;1,500;@\nbuy;X;0.125;@\nbuy;X;1.234.567;@\n",
        ["1.5", "0.125", "1234567"],
    ),
    "sep": (b"sep=;\r\ntype;figi;quantity;date\r\nbuy;X;2;@\r\n", ["2"]),
    "quoted sep": (b'"SEP=\t"\ntype\tfigi\tquantity\tdate\nbuy\tX\t2.500\t@\n', ["2.5"]),
    "capitals and order": (b"Date, FIGI,Type,Quantity\n@,X,Buy,2\n", ["2"]),
    "tabs": (b"type\tfigi\tquantity\tdate\nbuy\tX\t1,5\t@\n", ["1.5"]),
    "thousands": (
        'type,figi,quantity,date\nbuy,X,"1,234.5",@\nbuy,X,"12\u202f345,25",@\n'.encode(),
        ["1234.5", "12345.25"],
    ),
    "empty columns and lines": (b"type,figi,quantity,date,,\nbuy,X,2,@,,\n,,,,,\nbuy,X,3,@\n", ["2", "3"]),
}


@pytest.mark.parametrize(("content", "quantities"), CASES.values(), ids=CASES)
def test_an_import_reads_what_spreadsheets_save(content: bytes, quantities: list[str]) -> None:
    rows = decode(content.replace(b"@", b"2026-01-02T10:30:00Z"))
    assert [(row[:3], format_amount(row[3])) for row in rows] == [(("buy", None, "X"), each) for each in quantities]


REFUSALS = {
    "another column": (
        "type,figi,quantity,date,fee",
        "In line 1: there is no column fee; the columns are type, instrument_type",
    ),
    "a comma that could be either": (
        f'{HEADER}\nbuy,,X,"1,500",D',
        "In line 2, quantity: 1,500 could be 1.5 or 1500: write it in one of these",
    ),
    "a point that could be either": (
        f"{HEADER}\nbuy,,X,1.500,D".replace(",", ";"),
        "In line 2, quantity: 1.500 could be 1.5 or 1500: write it",
    ),
    "an empty cell": (f"{HEADER}\nbuy,,,2,2026-01-02T10:30:00Z", "In line 2, figi: this is empty."),
    "a long text": (
        f"{HEADER}\nbuy,,{'X' * 201},2,2026-01-02T10:30:00Z",
        "In line 2, figi: use at most 50 characters.",
    ),
    "a negative number": (f"{HEADER}\nbuy,,X,-2,2026-01-02T10:30:00Z", "In line 2, quantity: use a number above 0"),
    "no such date": (f"{HEADER}\nbuy,,X,2,2026-02-30T10:30:00Z", "In line 2, date: there is no such date."),
    "a line break": (
        f'{HEADER}\nbuy,"two\r\nlines",X,2,D',
        "In line 2, instrument_type: use one line of text, with no line breaks",
    ),
}


@pytest.mark.parametrize(("content", "detail"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_says_what_to_change(content: str, detail: str) -> None:
    with pytest.raises(Invalid) as refusal:
        decode(content.encode())
    assert refusal.value.detail.startswith(detail)


@pytest.mark.one_database
def test_compressed_bodies_and_workbooks_are_a_415(ada: Ledger) -> None:
    content = gzip.compress(f"{HEADER}\n{ROW}".encode())
    assert_problem(import_csv(ada, content), 415, "unsupported-media-type")
    assert_problem(import_csv(ada, b"PK\x03\x04workbook"), 415, "unsupported-media-type")
    for answer in (
        import_csv(ada, content, **{"Content-Encoding": "gzip"}),
        ada.call("POST", "", {"Content-Encoding": "br"}, json=OPERATION),
    ):
        assert_problem(answer, 415, "unsupported-media-type")
        assert answer.headers["accept-encoding"] == "identity"
    assert ada.all() == []


# ---- Refusals ----


MISTAKES: dict[str, tuple[str | bytes, int, str]] = {
    "empty": ("", 1, "columns"),
    "a line break alone": ("\r\n", 1, "columns"),
    "one column too few": ("type,figi,quantity", 1, "columns"),
    "one column too many": (f"{HEADER},id", 1, "columns"),
    "a column twice": (f"{HEADER},date", 1, "columns"),
    "a separator other than the announced one": (f"sep=;\n{HEADER}", 2, "there is no column ?"),
    "one cell too many": (f"{HEADER}\r\n{ROW}\r\n{ROW},more", 3, "cells"),
    "one cell too few": (f"{HEADER}\r\n{ROW}\r\nsell", 3, "cells"),
    "after an empty line": (f"{HEADER}\n{ROW}\n\n{ROW.replace('10', '-10', 1)}", 4, "quantity"),
    "a two-digit year": (
        f"{HEADER}\n{ROW.replace('string', chr(34) + 'a b' + chr(34))}\n{ROW.replace('2023', '20')}",
        3,
        "date",
    ),
    "a line break in a cell": (f'{HEADER}\n{ROW}\nsell,btc,"a\nb",1,2023-10-26T08:29:31Z', 3, "figi"),
    "an empty cell": (f"{HEADER}\n{ROW}\n,btc,figi,1,2023-10-26T08:29:31Z", 3, "type"),
    "a quote that stays open": (f'{HEADER}\n{ROW}\n"sell,btc', 3, "CSV"),
    "text after a closing quote": (f'{HEADER}\n{ROW}\n"sell"x,btc,figi,1,2023-10-26T08:29:31Z', 3, "CSV"),
    "a NUL": (f"{HEADER}\n{ROW}\nse\0ll,btc,figi,1,2023-10-26T08:29:31Z", 3, "type"),
    "an oversized cell": (f"{HEADER}\n{ROW}\n{'x' * 200_000},btc,figi,1,2023-10-26T08:29:31Z", 3, "CSV"),
    "not UTF-8": (f"{HEADER}\n{ROW}\n".encode() + b"\xff", 3, "UTF-8"),
    "UTF-16": (f"{HEADER}\n{ROW}\n".encode("utf-16"), 1, "UTF-8"),
}


@pytest.mark.parametrize(("content", "line", "part"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_by_its_line_and_nothing_is_imported(content: str | bytes, line: int, part: str) -> None:
    with pytest.raises(Invalid) as refusal:
        decode(content if isinstance(content, bytes) else content.encode())
    assert (refusal.value.members["line"], part in refusal.value.detail) == (line, True), refusal.value.detail
    assert refusal.value.members["errors"][0]["loc"][:2] == ["body", str(line)]


@pytest.mark.slow
@pytest.mark.one_database
def test_imports_that_wait_are_kept_in_files_and_not_in_memory(serve: Callable[..., Muster]) -> None:
    number, size = 20, 5_000_000
    muster = serve()
    bearer = muster.new_account().sign_in().bearer
    request = head("POST", "/api/operations/import", **bearer, **{"Content-Length": str(size + 1)}) + b"\n" * size
    assert muster.process is not None
    process = psutil.Process(muster.process.pid)
    memory, written = process.memory_info().rss, process.io_counters().write_chars
    with ExitStack() as stack:
        for _ in range(number):
            waiting = stack.enter_context(socket.create_connection(("127.0.0.1", muster.port), timeout=STARTUP))
            waiting.sendall(request)
        arrived = number * (size - 1_000_000)
        wait_for(lambda: process.io_counters().write_chars - written > arrived, what="the imports in files")
        assert process.memory_info().rss - memory < arrived / 2


def test_a_file_with_one_wrong_line_is_refused_whole(ada: Ledger) -> None:
    answer = import_csv(ada, "\n".join([HEADER, *[ROW] * 1500, ROW.replace("10", "0", 1)]))
    assert_problem(answer, 422, "invalid")
    assert (answer.json()["line"], answer.json()["errors"][0]["loc"]) == (1502, ["body", "1502", "quantity"])
    assert (ada.all(), ada.revision) == ([], 0)


def test_a_refusal_names_every_mistake_of_up_to_20_lines(ada: Ledger) -> None:
    wrong = [ROW.replace("10", "0", 1), ROW, "sell", "", f",btc,{'x' * 51},10,2023-10-26"]
    answer = import_csv(ada, "\n".join([HEADER, *wrong]))
    assert_problem(answer, 422, "invalid")
    places = [error["loc"] for error in answer.json()["errors"]]
    line_6 = [["body", "6", name] for name in ("type", "figi", "date")]
    assert places == [["body", "2", "quantity"], ["body", "4"], *line_6]
    many = import_csv(ada, "\n".join([HEADER, *["sell"] * 1000]))
    assert [error["loc"][1] for error in many.json()["errors"]] == [str(number) for number in range(2, 22)]
    broken = import_csv(ada, f'{HEADER}\nsell\n"sell')
    assert [error["loc"][1] for error in broken.json()["errors"]] == ["2", "3"]
    assert (ada.all(), ada.revision) == ([], 0)


def test_an_import_repeats_its_response_to_the_same_key(ada: Ledger) -> None:
    key = {"Idempotency-Key": "import-1"}
    first, again = (import_csv(ada, f"{HEADER}\n{ROW}", **key) for _ in "12")
    assert (
        (first.status_code, first.json()) == (again.status_code, again.json()) == (201, {"created": 1, "revision": 1})
    )
    assert_problem(import_csv(ada, f"{HEADER}\n{ROW}\n{ROW}", **key), 422, "idempotency-key-reused")
    assert len(ada.all()) == 1


@pytest.mark.slow
def test_only_the_import_accepts_more_than_max_body_and_it_has_a_limit_too(serve: Callable[..., Muster]) -> None:
    ada = Ledger(serve(MAX_BODY="2048", IMPORT_MAX_BODY="100000"))
    many = "\n".join([HEADER, *[ROW] * 1000])
    assert import_csv(ada, many).json() == {"created": 1000, "revision": 1000}
    assert_problem(import_csv(ada, many * 3), 413, "content-too-large")
    chunks = (many.encode() for _ in range(3))
    assert_problem(ada.call("POST", "import", content=chunks), 413, "content-too-large")
    assert_problem(ada.call("POST", json={**OPERATION, "figi": "x" * 3000}), 413, "content-too-large")


# ---- Any number of rows ----


@pytest.mark.slow
def test_many_rows_are_imported_and_exported_and_gzip_does_not_hold_them_back(muster: Muster, tmp_path: Path) -> None:
    ada = Ledger(muster)
    content = "\n".join([HEADER, *(f"sell,btc,f{n},{n + 1}e-8,2023-10-26T08:29:31Z" for n in range(MANY))])
    assert import_csv(ada, content).json() == {"created": MANY, "revision": MANY}
    figis, chunks, unpack = set(), 0, zlib.decompressobj(16 + zlib.MAX_WBITS)
    headers = {**ada.tokens.bearer, "Accept-Encoding": "gzip"}
    path = tmp_path / "export.csv"
    with path.open("wb") as file, ada.muster.client.stream("GET", "/api/operations/export", headers=headers) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        for chunk in answer.iter_raw():
            file.write(unpack.decompress(chunk))
            chunks += 1
    assert unpack.eof
    with path.open(newline="") as file:
        figis = {row["figi"] for row in csv.DictReader(file)}
    assert len(figis) == MANY
    assert chunks > 5
    total = ada.get("summary").json()[0]
    assert (total["count"], total["quantity"]) == (MANY, "0.32004")


def staged(muster: Muster) -> list[int]:
    """The ids of the rows that an import has staged."""
    return [row.id for row in muster.sql("SELECT id FROM operation WHERE revision < 0 ORDER BY id")]


def take_write_lock(connection: Connection) -> None:
    """Begin to write, trying without a pause: SQLite's own wait is so long that an import would be over meanwhile."""
    connection.execute(text("PRAGMA busy_timeout=0"))
    while True:
        with suppress(OperationalError):
            connection.execute(text("BEGIN IMMEDIATE"))
            return


def waits(muster: Muster) -> float:
    return number(scrape(muster), "muster_slot_waits_total")


@pytest.mark.one_database
@pytest.mark.slow
def test_others_write_while_an_import_is_written_and_nobody_sees_a_part_of_it(muster: Muster) -> None:
    ada, bob = Ledger(muster), Ledger(muster)
    with ThreadPoolExecutor(3) as pool:
        answer = pool.submit(import_csv, ada, "\n".join([HEADER, *[ROW] * LONG]))
        wait_for(lambda: staged(muster), what="the first rows")
        with muster.engine.begin() as connection:
            take_write_lock(connection)  # the import waits, so that all of these see the same of it
            part = staged(muster)
            assert 0 < len(part) < LONG
            assert (ada.all(), ada.get("summary").json(), ada.get("changes").json()["changes"]) == ([], [], [])
            assert ada.get(part[0]).status_code == 404
            before = waits(muster)
            adding = [pool.submit(ledger.add) for ledger in (bob, ada)]
            wait_for(lambda: waits(muster) >= before + 2, what="two others in line for the import's slot")
    others, own = (added.result() for added in adding)
    assert own["revision"] == 1
    assert answer.result().json() == {"created": LONG, "revision": LONG + 1}
    ids = muster.sql("SELECT min(id) AS first, max(id) AS last FROM operation WHERE id != :own", own=own["id"])[0]
    assert ids.first < others["id"] < ids.last, "the other person's write waited for the whole import"
    changes = ada.get("changes", since=LONG, limit=200).json()
    assert [change["revision"] for change in changes["changes"]] == [LONG + 1]
    assert staged(muster) == []


@pytest.mark.slow
def test_on_postgresql_others_write_while_an_import_is_written_and_nobody_sees_a_part_of_it(
    folder: Path, postgres: str
) -> None:
    """There it is one transaction, for which the person's own writes wait."""
    rows = 3 * BATCH
    with (
        fresh_database("postgresql", folder, postgres) as url,
        Muster(url, folder) as muster,
        ThreadPoolExecutor(2) as pool,
    ):
        ada, bob = Ledger(muster), Ledger(muster)
        before_the_last_row(muster, on_postgresql=f"PERFORM {ADVISORY_LOCK}")
        with muster.engine.begin() as connection:
            connection.execute(text(f"SELECT {ADVISORY_LOCK}"))
            answer = pool.submit(import_csv, ada, content_of(rows))
            wait_until_blocked(muster)
            assert (ada.all(), ada.get("summary").json(), ada.get("changes").json()["changes"]) == ([], [], [])
            assert bob.add()["revision"] == 1
            adding = pool.submit(ada.add)
            wait_for(lambda: blocked(muster) >= 2, what="the other write of this person")
            assert not answer.done()
        assert answer.result().json() == {"created": rows, "revision": rows}
        assert adding.result()["revision"] == rows + 1
        assert sum(total["count"] for total in ada.get("summary").json()) == rows + 1


def content_of(rows: int) -> str:
    """A file whose last row, also by its date, has the figi "last"."""
    return "\n".join([HEADER, *[ROW] * (rows - 1), ROW.replace("string", "last").replace("2023", "2024")])


ADVISORY_LOCK = "pg_advisory_xact_lock(7)"  # one that a test holds meanwhile


def before_the_last_row(muster: Muster, *, on_postgresql: str, on_sqlite: str = "") -> None:
    """Have the database execute a statement before it inserts an operation with the figi "last"."""
    trigger = "CREATE TRIGGER last_row BEFORE INSERT ON operation"
    if muster.on_sqlite:
        muster.sql(f"{trigger} WHEN NEW.figi = 'last' BEGIN {on_sqlite}; END")
    else:
        muster.sql(
            "CREATE OR REPLACE FUNCTION before_last_row() RETURNS trigger LANGUAGE plpgsql"
            f" AS $$ BEGIN {on_postgresql}; RETURN NEW; END $$"
        )
        muster.sql(f"{trigger} FOR EACH ROW WHEN (NEW.figi = 'last') EXECUTE FUNCTION before_last_row()")


def drop_trigger(muster: Muster) -> None:
    muster.sql("DROP TRIGGER last_row" if muster.on_sqlite else "DROP TRIGGER last_row ON operation")


def test_an_import_that_fails_in_the_middle_leaves_nothing_behind(ada: Ledger) -> None:
    before_the_last_row(
        ada.muster,
        on_sqlite="SELECT raise(ABORT, 'as on a full disk')",
        on_postgresql="RAISE 'as on a full disk' USING ERRCODE = 'check_violation'",
    )
    try:
        assert_problem(import_csv(ada, content_of(2501)), 409, "conflict")
    finally:
        drop_trigger(ada.muster)
    assert (staged(ada.muster), ada.all(), ada.revision) == ([], [], 0)


@pytest.mark.slow
def test_other_threads_run_while_the_rows_of_an_import_are_sorted() -> None:
    times = (datetime.fromtimestamp(number * 7919 % 100_003, UTC) for number in range(100_000))
    rows = [("buy", None, "X", Decimal(1), time) for time in times]
    turns = [process_time()]  # of this process alone: time that a busy machine takes away is not counted
    with ThreadPoolExecutor(1) as pool:
        ordered = pool.submit(by_date, rows)
        while not ordered.done():
            sleep(0.001)
            turns.append(process_time())
    assert ordered.result() == sorted(rows, key=itemgetter(4))
    assert max(later - earlier for earlier, later in pairwise(turns)) < (turns[-1] - turns[0]) * 3 / 4


@pytest.mark.slow
def test_no_row_of_an_import_is_visible_when_the_process_is_killed_in_the_middle(serve: Callable[..., Muster]) -> None:
    muster, rows = serve(), 3 * BATCH
    ada, content, key = Ledger(muster), content_of(rows), {"Idempotency-Key": "once"}
    before_the_last_row(
        muster,
        on_sqlite="SELECT count(*) FROM operation a, operation b, operation c, operation d",  # endless
        on_postgresql=f"PERFORM {ADVISORY_LOCK}",
    )
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        if not muster.on_sqlite:
            stack.enter_context(muster.engine.begin()).execute(text(f"SELECT {ADVISORY_LOCK}"))
        answer = pool.submit(import_csv, ada, content, **key)
        if muster.on_sqlite:
            wait_for(lambda: staged(muster), what="the first rows")
        else:
            wait_until_blocked(muster)
        muster.kill()
        assert isinstance(answer.exception(), httpx.TransportError)
    drop_trigger(muster)
    muster.start()
    assert staged(muster) or not muster.on_sqlite, "the import was not in the middle"
    assert (ada.all(), ada.revision) == ([], 0)
    assert import_csv(ada, content, **key).json() == {"created": rows, "revision": rows}
    assert import_csv(ada, content, **key).json() == {"created": rows, "revision": rows}
    assert sum(total["count"] for total in ada.get("summary").json()) == rows


@pytest.mark.slow
def test_a_few_of_many_concurrent_imports_wait_two_for_each_person_and_the_others_get_503(
    serve: Callable[..., Muster],
) -> None:
    muster = serve()
    ada, *others = (Ledger(muster) for _ in range(MAX_IMPORTS - IMPORTS_OF_ONE + 2))
    lock = "BEGIN IMMEDIATE" if muster.on_sqlite else "LOCK TABLE operation"
    with ThreadPoolExecutor(20) as pool, muster.engine.begin() as connection:
        connection.execute(text(lock))  # no import can be written
        imports = [pool.submit(import_csv, ada, f"{HEADER}\n{ROW}\n") for _ in range(IMPORTS_OF_ONE + 3)]
        refused = [next(done).result() for done in [as_completed(imports)] * 3]
        imports += [pool.submit(import_csv, other, f"{HEADER}\n{ROW}\n") for other in others]
        refused.append(next(as_completed(imports[-len(others) :])).result())
        assert_problem(refused[0], 503, "unavailable")
        assert [int(answer.headers["retry-after"]) for answer in refused] == [10] * 4
    assert sorted(each.result().status_code for each in imports) == [201] * MAX_IMPORTS + [503] * 4
    assert ada.revision == IMPORTS_OF_ONE


@contextmanager
def export_that_breaks_off(ada: Ledger) -> Iterator[None]:
    """A block in which a slow reader has the beginning of a long export. The part must not pass for the whole then."""
    long = "x" * 50
    ada.copy(ada.add(type=long, instrument_type=long, figi=long), 10_000)
    with closing(HTTPConnection("127.0.0.1", ada.muster.port)) as client:
        client.sock = slow_connection(ada.muster)
        client.request("GET", "/api/operations/export", headers=ada.tokens.bearer)
        answer = client.getresponse()
        assert answer.readline().startswith(HEADER.encode())
        yield
        with pytest.raises(IncompleteRead):
            answer.read()


def test_an_export_breaks_off_once_its_session_or_account_has_ended(muster: Muster) -> None:
    ada = Ledger(muster)
    with export_that_breaks_off(ada):
        assert muster.client.post("/api/auth/revoke", data={"token": ada.tokens.refresh}).status_code == 200


def test_a_slow_reader_holds_nothing_and_a_stop_in_mid_stream_breaks_the_connection(
    serve: Callable[..., Muster],
) -> None:
    muster = serve(DB_SLOTS="1", SLOT_TIMEOUT="2")
    ada = Ledger(muster)
    with export_that_breaks_off(ada):
        assert [ada.get(limit=1).status_code for _ in range(3)] == [200] * 3
        muster.sql("ALTER TABLE operation RENAME TO elsewhere")
    muster.sql("ALTER TABLE elsewhere RENAME TO operation")
    assert ada.get(limit=1).status_code == 200

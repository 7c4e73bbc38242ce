"""The lists of the ledger: order, pages, filters; and what each read costs in statements and in rows scanned."""

from typing import Any

import pytest
from sqlalchemy import text

from app.models.base import MAX_ID
from tests.support.assertions import assert_problem
from tests.support.phones import Ledger
from tests.support.servers import Muster
from tests.support.sessions import connected

FEW = ("1", "2", "3", "4", "5", "6", "7")


@pytest.fixture(scope="module")
def ada(counting: Muster) -> Ledger:
    """A ledger with operations of two types, one of each on each of seven days; its token has been used before."""
    ledger = Ledger(counting)
    for day in FEW:
        date = f"2024-01-0{day}T12:00:00Z"
        ledger.add(figi=day, type="buy", date=date)
        ledger.add(figi=day, type="sell", date=date, instrument_type=None)
    return ledger


def figis(rows: list[dict[str, Any]]) -> str:
    return "".join(row["figi"] for row in rows)


# ---- Order, pages, filters ----


@pytest.mark.parametrize("limit", [1, 3, 14, 200])
def test_pages_give_every_operation_once_newest_first(ada: Ledger, limit: int) -> None:
    rows = ada.all(limit=limit)
    assert figis(rows) == "77665544332211"
    assert [(row["date"], row["id"]) for row in rows] == sorted(((r["date"], r["id"]) for r in rows), reverse=True)
    assert "next" not in ada.get(limit=14).links


def test_a_page_stays_where_it_was_when_something_newer_arrives(counting: Muster) -> None:
    ledger = Ledger(counting)
    for day in FEW:
        ledger.add(figi=day, date=f"2024-01-0{day}T12:00:00Z")
    link = ledger.get(limit=3).links["next"]["url"]
    assert link.startswith("/api/operations?limit=3&after=")
    ledger.add(figi="9")
    assert figis(counting.client.get(link, headers=ledger.tokens.bearer).json()) == "432"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"type": " BUY "}, "7654321"),
        ({"type": "nothing"}, ""),
        ({"instrument_type": "BTC", "type": "sell"}, ""),
        ({"instrument_type": "btc"}, "7654321"),
        ({"figi": "3"}, "33"),
        ({"from": "2024-01-03T12:00:00Z", "to": "2024-01-05T12:00:00Z"}, "4433"),
        ({"from": "2024-01-03T14:00:00+02:00", "type": "buy"}, "76543"),
        ({"from": "2024-01-06", "to": "2024-01-07"}, "66"),
        ({"to": "2024-01-02"}, "11"),
    ],
    ids=str,
)
def test_filters_ignore_case_as_the_fields_do_and_stay_in_the_links(
    ada: Ledger, query: dict[str, str], found: str
) -> None:
    assert figis(ada.all(**query)) == figis(ada.all(**query, limit=2)) == found


@pytest.mark.parametrize(
    "query",
    ["type=", "type=%00", "figi=" + "x" * 51, "from=yesterday", "to=5", "from=2024-01-01T00:00:00", "from=2024-13-01"],
    ids=lambda query: query[:24],
)
def test_an_invalid_filter_is_refused(ada: Ledger, query: str) -> None:
    for path in ("", "export"):
        assert_problem(ada.get(f"{path}?{query}"), 422, "invalid")


# ---- Costs ----


@pytest.mark.parametrize(
    ("path", "statements"),
    [
        ("", 2),
        ("?limit=1", 2),
        ("?type=buy&from=2024-01-02&limit=2", 2),
        ("{id}", 2),
        ("changes", 3),
        ("changes?since=5&limit=3", 3),
        ("export", 1),  # its own are counted once it has begun
    ],
)
def test_a_read_is_one_statement_besides_authentication_and_the_floor(ada: Ledger, path: str, statements: int) -> None:
    answer = ada.get(path.format(id=ada.get(limit=1).json()[0]["id"]))
    assert (answer.status_code, int(answer.headers["statements"])) == (200, statements)


def test_a_304_costs_the_authentication_query_alone(ada: Ledger) -> None:
    tag = {"If-None-Match": ada.get().headers["etag"]}
    for path in ("", "?type=buy&limit=3", "summary"):
        answer = ada.get(path, headers=tag)
        assert (answer.status_code, answer.headers["statements"]) == (304, "1")
    ada.get("summary")
    assert ada.get("summary").headers["statements"] == "1"


def test_a_write_locks_its_owner_and_changes_two_rows(counting: Muster) -> None:
    ledger = Ledger(counting)
    ledger.get()
    created = ledger.post()
    operation_id = created.json()["id"]
    patched, unchanged = (ledger.patch(operation_id, figi="other") for _ in "12")
    keyed, again = (ledger.post(headers={"Idempotency-Key": "k"}) for _ in "12")
    deleted = ledger.delete(operation_id)
    answers = (created, patched, unchanged, keyed, again, deleted)
    assert [int(answer.headers["statements"]) for answer in answers] == [3, 5, 3, 6, 3, 5]


# Each read of the ledger as SQL, with the index that gives its rows in its order.
LIST = (
    "SELECT id, date FROM operation WHERE owner_id = :me AND deleted_at IS NULL {} ORDER BY date DESC, id DESC LIMIT 51"
)
PLANS = {
    LIST.format(""): "ix_operation_owner_id_date_id",
    LIST.format("AND (date, id) < ('2024-01-05 12:00:00', 9)"): "ix_operation_owner_id_date_id",
    LIST.format("AND date >= '2024-01-01' AND date < '2024-02-01'"): "ix_operation_owner_id_date_id",
    LIST.format("AND type = 'unused'"): "ix_operation_owner_id_type_date_id",
    LIST.format("AND type = 'unused' AND (date, id) < ('2024-01-05', 9)"): "ix_operation_owner_id_type_date_id",
    LIST.format("AND instrument_type = 'unused'"): "ix_operation_owner_id_instrument_type_date_id",
    LIST.format("AND figi = 'unused'"): "ix_operation_owner_id_figi_date_id",
    "SELECT id FROM operation WHERE owner_id = :me AND revision > 3 ORDER BY revision LIMIT 51": (
        "ix_operation_owner_id_revision"
    ),
}


@pytest.fixture(scope="module")
def many(counting: Muster) -> Ledger:
    """A ledger with so many operations that PostgreSQL does not just read them all."""
    ledger = Ledger(counting)
    ledger.copy(ledger.add(), 2000)
    counting.sql("ANALYZE operation")
    return ledger


@pytest.mark.parametrize("query", PLANS, ids=list(map(str, range(len(PLANS)))))
def test_a_list_is_one_scan_of_an_index(counting: Muster, many: Ledger, query: str) -> None:
    with connected(counting) as connection:
        on_sqlite = connection.dialect.name == "sqlite"
        if not on_sqlite:  # a few rows are sorted as fast: ask what could be done
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        me = many.owner_id.replace("-", "") if on_sqlite else many.owner_id
        explain = "EXPLAIN QUERY PLAN " if on_sqlite else "EXPLAIN "
        plan = "\n".join(str(row) for row in connection.execute(text(explain + query), {"me": me}))
    assert PLANS[query] in plan, plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
    assert "Filter" not in plan


def test_the_largest_id_is_404_and_anything_larger_is_422(ada: Ledger) -> None:
    assert_problem(ada.get(MAX_ID), 404, "operation-not-found")
    assert_problem(ada.get(MAX_ID + 1), 422, "invalid")

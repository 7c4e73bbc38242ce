"""The lists of the ledger: order, pages, filters; and what each read costs in statements and in rows scanned."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlmodel import Session

from app.core.row_reader import read_rows
from app.ledger.operations import list_query, read_changes
from app.models.base import MAX_ID
from app.models.operation import ChangesQuery, OperationFilter
from tests.support.assertions import assert_problem
from tests.support.ledgers import Ledger
from tests.support.plans import plans
from tests.support.servers import Muster

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


Read = Callable[[Session, UUID], object]


def a_page(*after: str, **filters: str) -> Read:
    """The first page of a list with these filters, or the page after the operation with this date and id."""
    selected = OperationFilter.model_validate(filters)
    return lambda session, owner_id: read_rows(session, *list_query(owner_id, selected, after or None, 51))


# Each list of the ledger, with the index that gives its rows in its order.
AFTER = ("2024-01-05T12:00:00+00:00", "9")
BY_DATE, BY_TYPE = "ix_operation_owner_id_date_id", "ix_operation_owner_id_type_date_id"
PLANS: dict[str, tuple[Read, str]] = {
    "all": (a_page(), BY_DATE),
    "all, continued": (a_page(*AFTER), BY_DATE),
    "a period": (a_page(**{"from": "2024-01-01", "to": "2024-02-01"}), BY_DATE),
    "a type": (a_page(type="unused"), BY_TYPE),
    "a type, continued": (a_page(*AFTER, type="unused"), BY_TYPE),
    "a type of instrument": (a_page(instrument_type="unused"), "ix_operation_owner_id_instrument_type_date_id"),
    "an instrument": (a_page(figi="unused"), "ix_operation_owner_id_figi_date_id"),
    "changes": (
        lambda session, owner_id: read_changes(session, owner_id, ChangesQuery(since=3), 3),
        "ix_operation_owner_id_revision",
    ),
}
# Staged rows are left out by their revision: the rows of an import that is not published, if anybody has one.
NOT_STAGED = "Filter: ((revision + '0'::bigint) > '0'::bigint)"


@pytest.fixture(scope="module")
def many(counting: Muster) -> Ledger:
    """A ledger with so many operations that PostgreSQL does not just read them all."""
    ledger = Ledger(counting)
    ledger.copy(ledger.add(), 2000)
    counting.sql("ANALYZE operation")
    return ledger


@pytest.mark.parametrize(("read", "index"), PLANS.values(), ids=PLANS)
def test_a_list_is_one_scan_of_an_index(counting: Muster, many: Ledger, read: Read, index: str) -> None:
    with counting.engine.begin() as connection:
        if connection.dialect.name != "sqlite":  # a few rows are sorted as fast: ask what could be done
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        plan = plans(connection, lambda session: read(session, UUID(many.owner_id)))[0]
    assert index in plan, plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
    assert "Filter" not in plan.replace(NOT_STAGED, "")


def test_the_largest_id_is_404_and_anything_larger_is_422(ada: Ledger) -> None:
    assert_problem(ada.get(MAX_ID), 404, "operation-not-found")
    assert_problem(ada.get(MAX_ID + 1), 422, "invalid")

"""Exact amounts: what goes in comes out, on both databases, and totals are what Decimal says."""

import json
from collections import defaultdict
from decimal import Decimal, localcontext
from typing import Any

import pytest

from app.core.dialects import ExactSum
from tests.support.assertions import assert_problem
from tests.support.ledgers import OPERATION, Ledger
from tests.support.servers import Muster


@pytest.fixture(scope="module")
def ada(muster: Muster) -> Ledger:
    return Ledger(muster)


def raw(number: str) -> bytes:
    """The example body with a quantity exactly as it is written here."""
    return json.dumps({**OPERATION, "quantity": "?"}).replace('"?"', number).encode()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ('"10"', "10"),
        ("10", "10"),
        ('"10.0"', "10"),
        ("0.1", "0.1"),
        ("0.30000000000000004e0", None),
        ("1.5", "1.5"),
        ("10.0", "10"),
        ("1e2", "100"),
        ('"0.00000001"', "0.00000001"),
        ("1e-8", "0.00000001"),
        ('"1E+11"', "100000000000"),
        ("999999999999.99999999", "999999999999.99999999"),
        ('"123456789012.12345678"', "123456789012.12345678"),
        ('"0010.500"', "10.5"),
        ('"1.00000000000"', "1"),
    ],
)
def test_an_amount_is_kept_to_its_last_digit_and_never_rounded(ada: Ledger, sent: str, kept: str | None) -> None:
    answer = ada.call("POST", "", {"Content-Type": "application/json"}, content=raw(sent))
    if kept is None:
        assert_problem(answer, 422, "invalid")
        return
    assert (answer.status_code, answer.json()["quantity"]) == (201, kept)
    operation_id = answer.json()["id"]
    assert ada.get(operation_id).json()["quantity"] == kept
    assert ada.patch(operation_id, figi="other").json()["quantity"] == kept


@pytest.mark.parametrize(
    "sent",
    [
        *("0", '"0"', '"0.000000000"', "-1", '"-1"', '"-0.1"', "1e12", "1000000000000", '"1e12"', '"1e999"', "1e-9"),
        *('"0.000000001"', '"999999999999.999999999"', '"1_0"', '" 1"', '"1 "', '"+1"', '"NaN"', '"Infinity"', '""'),
        *('"1,5"', '"0x10"', '"\\u0661"', '".5"', '"5."', '"1e"', '"1\\u0000"', "true", "null", "[]", "{}", '"10\\n"'),
        '"' + "9" * 100_000 + '"',
    ],
    ids=lambda sent: ascii(sent)[:24],
)
def test_an_amount_that_is_not_positive_or_does_not_fit_is_rejected(ada: Ledger, sent: str) -> None:
    answer = ada.call("POST", "", {"Content-Type": "application/json"}, content=raw(sent))
    assert_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["loc"] == ["body", "quantity"]


def test_totals_are_a_plain_sum_of_decimals_by_type_instrument_and_month_in_utc(muster: Muster) -> None:
    ledger = Ledger(muster)
    rows: list[dict[str, Any]] = [
        {"quantity": "0.1", "date": "2024-01-31T23:59:59.999999Z"},
        {"quantity": "0.2", "date": "2024-02-01T01:00:00+02:00"},
        {"quantity": "999999999999.99999999", "date": "2024-02-01T00:00:00Z"},
        {"quantity": "999999999999.99999999", "date": "2024-01-31T19:00:00-05:00"},
        {"quantity": "0.00000001", "instrument_type": None},
        {"quantity": "3", "type": "buy"},
        {"quantity": "3", "type": "Buy", "date": "0001-01-01T00:00:00Z"},
        {"quantity": "5", "type": "buy", "date": "9999-12-31T23:59:59Z"},
    ]
    kept = [ledger.add(**row) for row in rows]
    ledger.delete(ledger.add(quantity="7")["id"])
    sums: defaultdict[tuple[Any, ...], list[Decimal]] = defaultdict(list)
    for row in kept:
        sums[row["type"], row["instrument_type"], row["date"][:7]].append(Decimal(row["quantity"]))
    totals = ledger.get("summary").json()
    with localcontext(prec=60):
        assert {
            (total["type"], total["instrument_type"], total["month"]): (total["count"], Decimal(total["quantity"]))
            for total in totals
        } == {key: (len(amounts), sum(amounts)) for key, amounts in sums.items()}
    assert {total["quantity"] for total in totals if total["month"] == "2024-01"} == {"0.3"}
    order = [(total["month"], total["type"], total["instrument_type"] or "") for total in totals]
    assert order == sorted(sorted(order, key=lambda key: key[1:]), key=lambda key: key[0], reverse=True)


def test_sqlites_sum_rounds_nothing_however_long_it_gets() -> None:
    total = ExactSum()
    for _ in range(1_001):
        total.step("999999999999.99999999")
    total.step("0.00000002")
    assert total.finalize() == "1000999999999999.99999001"
    assert ExactSum().finalize() == "0.00000000"

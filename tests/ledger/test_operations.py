"""The routes of the ledger: create, read, list, replace, change, delete; what is refused, and what belongs to whom."""

from typing import Any

import pytest

from tests.support.assertions import assert_problem
from tests.support.ledgers import FIELDS, OPERATION, PATH, Ledger
from tests.support.servers import Muster


@pytest.fixture
def ada(muster: Muster) -> Ledger:
    return Ledger(muster)


@pytest.fixture(scope="module")
def shared(muster: Muster) -> Ledger:
    """A ledger for tests that only read, or whose writes are refused."""
    return Ledger(muster)


# ---- One operation ----


def test_the_example_body_is_recorded_and_read_back(ada: Ledger) -> None:
    answer = ada.post()
    row = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{PATH}/{row['id']}"
    assert {name: row[name] for name in FIELDS} == {
        "quantity": "10",
        "figi": "string",
        "instrument_type": "btc",
        "date": "2023-10-26T08:29:31.139000Z",
        "type": "sell",
    }
    assert row.keys() == {*FIELDS, "id", "owner_id", "created_at", "updated_at", "revision"}
    assert (row["owner_id"], row["revision"]) == (ada.owner_id, 1)
    assert row["created_at"] == row["updated_at"]
    assert row["created_at"].endswith("Z")
    again = ada.get(row["id"])
    assert (again.status_code, again.json()) == (200, row)
    assert again.headers["etag"] == answer.headers["etag"] == f'"{ada.owner_id}.1"'
    assert again.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"type": "  SeLL\n"}, {"type": "sell"}),
        ({"type": "ÄPFEL"}, {"type": "äpfel"}),
        ({"type": "I\u0307" + "ß"}, {"type": "i\u0307ß"}),
        ({"figi": " BBG000B9XRY4 "}, {"figi": "BBG000B9XRY4"}),
        ({"figi": "e\u0301" * 50}, {"figi": "é" * 50}),
        ({"instrument_type": None}, {"instrument_type": None}),
        ({"date": "2024-02-29T23:59:59.999999+14:00"}, {"date": "2024-02-29T09:59:59.999999Z"}),
        ({"date": "0001-01-01T00:00:00Z"}, {"date": "0001-01-01T00:00:00.000000Z"}),
        ({"date": "9999-12-31T23:59:59.999999Z"}, {"date": "9999-12-31T23:59:59.999999Z"}),
    ],
    ids=ascii,
)
def test_text_is_trimmed_and_folded_and_times_are_utc(
    shared: Ledger, sent: dict[str, Any], kept: dict[str, Any]
) -> None:
    row = shared.add(**sent)
    assert {name: row[name] for name in kept} == kept
    assert shared.get(row["id"]).json() == row


REFUSED: list[tuple[str, Any]] = [
    ("type", ""),
    ("type", "  "),
    ("type", "\x1c"),
    ("type", None),
    ("type", 5),
    ("type", "a\0b"),
    ("type", "\ud800"),
    ("type", "İ" * 26),  # 52 characters in lower case
    ("type", "a" * 51),
    ("type", "a" * 100_000),
    ("figi", "x" * 51),
    ("figi", None),
    ("instrument_type", ""),
    ("date", None),
    ("date", 1),
    ("date", "1698309871"),
    ("date", "2023-10-26"),
    ("date", "2023-10-26T08:29:31"),
    ("date", "2023-02-30T08:29:31Z"),
    ("date", "2023-10-26T08:29:31+25:00"),
    ("date", "0001-01-01T00:00:00+14:00"),
    ("date", "9999-12-31T23:59:59-14:00"),
    ("date", "٢٠٢٣-10-26T08:29:31Z"),
    ("id", 7),
    ("owner_id", "00000000-0000-0000-0000-000000000000"),
    ("revision", 7),
    ("created_at", "2023-10-26T08:29:31Z"),
    ("deleted_at", None),
    ("sudo", True),
]


@pytest.mark.parametrize(("field", "value"), REFUSED, ids=lambda value: ascii(value)[:30])
def test_an_invalid_value_is_a_422_that_names_its_field_on_every_route(shared: Ledger, field: str, value: Any) -> None:
    operation_id, before = _one(shared), shared.revision
    content = {**OPERATION, field: value}
    for answer in (
        shared.call("POST", json=content),
        shared.call("PUT", operation_id, json=content),
        shared.patch(operation_id, **{field: value}),
    ):
        assert_problem(answer, 422, "invalid")
        assert answer.json()["errors"][0]["loc"] == ["body", field]
    assert shared.revision == before


def _one(ledger: Ledger) -> int:
    """An operation that already exists, or a first one."""
    rows = ledger.get(limit=1).json() or [ledger.add()]
    return int(rows[0]["id"])


@pytest.mark.parametrize("field", ["type", "figi", "quantity", "date"])
def test_a_missing_field_is_rejected_except_by_patch(shared: Ledger, field: str) -> None:
    body = {name: value for name, value in OPERATION.items() if name != field}
    row = shared.add(instrument_type="other")
    for answer in (shared.call("POST", json=body), shared.call("PUT", row["id"], json=body)):
        assert_problem(answer, 422, "invalid")
    patched = shared.call("PATCH", row["id"], json=body)
    assert (patched.status_code, patched.json()["instrument_type"]) == (200, "btc")
    assert patched.json()[field] == row[field]


@pytest.mark.parametrize("operation_id", ["0", "-1", str(2**63), "1.5", "x", "٣"])
def test_an_invalid_id_is_rejected(shared: Ledger, operation_id: str) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        answer = shared.call(method, operation_id, json=OPERATION)
        assert_problem(answer, 422, "invalid")


def test_an_unknown_id_and_another_persons_operation_are_the_same_404(ada: Ledger, shared: Ledger) -> None:
    theirs = shared.add()
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        foreign, unknown = (ada.call(method, each, json=OPERATION) for each in (theirs["id"], 2**63 - 1))
        assert_problem(foreign, 404, "operation-not-found")
        assert foreign.json() == unknown.json()
    assert shared.get(theirs["id"]).json() == theirs
    assert (ada.all(), ada.revision) == ([], 0)


# ---- Changing ----


def test_put_replaces_every_field_and_raises_the_revision(ada: Ledger) -> None:
    row = ada.add()
    body = {"type": "buy", "figi": "other", "quantity": "0.5", "date": "2024-01-01T00:00:00.000000Z"}
    answer = ada.call("PUT", row["id"], json=body)
    changed = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (200, f'"{ada.owner_id}.2"')
    assert {name: changed[name] for name in FIELDS} == {**body, "instrument_type": None}
    assert (changed["id"], changed["created_at"], changed["revision"]) == (row["id"], row["created_at"], 2)
    assert changed["updated_at"] > row["updated_at"]
    assert ada.all() == [changed]


def test_patch_changes_what_is_sent_and_nothing_else(ada: Ledger) -> None:
    row = ada.add()
    answer = ada.patch(row["id"], figi="other", instrument_type=None)
    assert answer.status_code == 200
    changed = {"figi": "other", "instrument_type": None, "revision": 2, "updated_at": answer.json()["updated_at"]}
    assert answer.json() == {**row, **changed} == ada.get(row["id"]).json()


def test_an_update_without_changes_writes_nothing(ada: Ledger) -> None:
    row = ada.add(quantity="0.10")
    for answer in (
        ada.patch(row["id"]),
        ada.patch(row["id"], type=" SELL "),
        ada.patch(row["id"], quantity="1e-1", date="2023-10-26T10:29:31.139+02:00"),
        ada.call("PUT", row["id"], json={**OPERATION, "quantity": "0.1"}),
    ):
        assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, row, f'"{ada.owner_id}.1"')
    assert ada.revision == 1


def test_a_deleted_operation_is_gone_and_stays_a_tombstone(ada: Ledger) -> None:
    row, other = ada.add(), ada.add()
    answer = ada.delete(row["id"])
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert_problem(ada.call(method, row["id"], json=OPERATION), 404, "operation-not-found")
    assert ada.all() == [other]
    assert ada.revision == 3
    assert len(ada.muster.sql("SELECT id FROM operation WHERE id = :id AND revision = 3", id=row["id"])) == 1


def test_deleting_an_account_deletes_its_operations_and_idempotency_keys(ada: Ledger) -> None:
    row = ada.post(headers={"Idempotency-Key": "once"}).json()
    password = {"current_password": ada.account.password}
    gone = ada.muster.client.request("DELETE", "/api/users/me", json=password, headers=ada.tokens.bearer)
    assert gone.status_code == 204
    assert ada.muster.sql("SELECT id FROM operation WHERE id = :id", id=row["id"]) == []
    orphans = 'SELECT id FROM idempotency_key WHERE owner_id NOT IN (SELECT id FROM "user")'
    assert ada.muster.sql(orphans) == []
    assert_problem(ada.get(), 401, "invalid-token")

"""Sync by one revision per owner: changes for offline phones, ETags, and no lost updates in races."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.assertions import assert_problem
from tests.support.concurrency import at_once
from tests.support.ledgers import OPERATION, Ledger
from tests.support.phones import Device, device_of
from tests.support.servers import Muster


@pytest.fixture
def ada(muster: Muster) -> Ledger:
    return Ledger(muster)


@pytest.fixture
def device(ada: Ledger, tmp_path: Path) -> Iterator[Device]:
    with device_of(ada, tmp_path) as device:
        yield device


# ---- Changes ----


def test_an_empty_ledger_has_no_changes(ada: Ledger) -> None:
    answer = ada.get("changes", since=0)
    assert answer.json() == {"changes": [], "next": 0, "more": False}
    assert ada.get("changes").json() == answer.json()


def test_changes_are_rows_and_tombstones_in_the_order_of_their_revisions(ada: Ledger) -> None:
    first, second, third = ada.add(), ada.add(), ada.add()
    ada.delete(second["id"])
    changed = ada.patch(first["id"], figi="other").json()
    body = ada.get("changes", since=0).json()
    assert [(change["id"], change["revision"]) for change in body["changes"]] == [
        (third["id"], 3),
        (second["id"], 4),
        (first["id"], 5),
    ]
    assert body["changes"][0] == third
    assert body["changes"][1].keys() == {"id", "revision", "deleted_at"}
    assert body["changes"][2] == changed
    assert (body["next"], body["more"]) == (5, False)
    page = ada.get("changes", since=3, limit=1).json()
    assert ([change["id"] for change in page["changes"]], page["next"], page["more"]) == ([second["id"]], 4, True)


def test_a_phone_that_applies_the_changes_converges_whatever_happens_between_its_requests(device: Device) -> None:
    ada = device.ledger
    rows = [ada.add(figi=str(number)) for number in range(7)]
    device.pull(1)
    assert len(device.phone.copy) == 3
    ada.delete(rows[0]["id"])
    ada.patch(rows[1]["id"], type="buy")
    device.pull(1)
    ada.delete(rows[6]["id"])
    ada.add()
    device.pull(1)
    ada.patch(rows[5]["id"], type="buy")
    device.phone.sync()
    assert device.has_all()
    revisions = device.network.revisions
    assert revisions == sorted(revisions)
    assert revisions[-1] == ada.revision == 12


@pytest.mark.slow
def test_a_phone_that_syncs_while_others_write_converges_and_revisions_have_no_gaps(device: Device) -> None:
    ada = device.ledger

    def write(number: int) -> None:
        row = ada.add(figi=str(number))
        ada.patch(row["id"], type="buy")
        if number % 2:
            ada.delete(row["id"])

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, number) for number in range(24)]
        while not all(writer.done() for writer in writers):
            device.phone.sync()
    assert [writer.exception() for writer in writers] == [None] * 24
    device.phone.sync()
    assert device.has_all()
    revisions = device.network.revisions
    assert revisions == sorted(set(revisions))
    assert revisions[-1] == ada.revision == 24 * 2 + 12
    kept = ada.muster.sql(
        'SELECT revision FROM operation JOIN "user" ON "user".id = owner_id WHERE email = :email',
        email=ada.account.email,
    )
    assert len({row.revision for row in kept}) == len(kept) == 24


def test_a_client_ahead_of_the_server_or_behind_the_floor_must_sync_from_scratch(device: Device) -> None:
    ada = device.ledger
    rows = [ada.add() for _ in range(4)]
    ada.delete(rows[0]["id"])
    ada.delete(rows[1]["id"])
    ada.purge()
    for since in (1, 5, 7, 2**63 - 1):
        assert_problem(ada.get("changes", since=since), 410, "resync-required")
    assert ada.get("changes", since=6).json() == {"changes": [], "next": 6, "more": False}
    assert_problem(ada.get("changes", since=7, full=True), 410, "resync-required")
    device.phone.sync()
    assert device.has_all()
    assert ada.get("changes", since=0, full=True).json()["next"] == 6
    assert ada.get("changes", since=0).status_code == 200


def test_a_fill_that_follows_its_links_learns_of_a_purge_that_hides_a_delete(ada: Ledger) -> None:
    rows = [ada.add() for _ in range(4)]
    ada.delete(rows[3]["id"])
    ada.purge()  # before the fill begins: it does no harm
    first = ada.get("changes", since=0, limit=1, full=True)
    second = ada.follow(first)
    assert [page.json()["changes"] for page in (first, second)] == [[rows[0]], [rows[1]]]
    ada.delete(rows[0]["id"])
    ada.purge()
    assert_problem(ada.follow(second), 410, "resync-required")
    assert_problem(ada.get("changes", since=second.json()["next"]), 410, "resync-required")


@pytest.mark.parametrize("query", ["since=-1", "since=x", f"since={2**63}", "limit=0", "limit=201", "full=2"])
def test_an_invalid_query_of_changes_is_refused(ada: Ledger, query: str) -> None:
    assert_problem(ada.get(f"changes?{query}"), 422, "invalid")


# ---- ETags ----


def test_the_list_is_not_sent_again_while_nothing_has_changed(ada: Ledger) -> None:
    row = ada.add()
    tag = ada.get().headers["etag"]
    assert tag == f'"{ada.owner_id}.1"' == ada.get("summary").headers["etag"]
    for sent in (tag, f"W/{tag}", f'"a,b", W/"c" ,\t{tag}', f",,{tag},", "*"):
        for path in ("", "summary", row["id"]):
            answer = ada.get(path, headers={"If-None-Match": sent})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), (sent, path)
    other = Ledger(ada.muster)
    other.add()
    for sent in ("", "1", "x", tag[:-1], tag.replace(".1", ".01"), '"', f"{tag} {tag}", other.get().headers["etag"]):
        assert ada.get(headers={"If-None-Match": sent}).status_code == 200, sent
    ada.patch(row["id"], figi="other")
    again = ada.get(headers={"If-None-Match": tag})
    assert (again.status_code, again.headers["etag"]) == (200, f'"{ada.owner_id}.2"')


def _change(ada: Ledger, method: str, operation_id: int, if_match: str) -> httpx.Response:
    body = None if method == "DELETE" else {**OPERATION, "figi": method}
    return ada.call(method, operation_id, {"If-Match": if_match}, json=body)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_change_to_an_outdated_version_is_refused(ada: Ledger, method: str) -> None:
    row = ada.add()
    old = ada.get(row["id"]).headers["etag"]
    new = ada.patch(row["id"], type="buy").headers["etag"]
    bare = new.strip('"')
    wrong = [old, f"W/{old}", "", "x", bare, f'"{bare}', new.replace(".2", ".02"), f'"{bare} "', f'W/*, "{bare}x"']
    for sent in wrong:
        assert_problem(_change(ada, method, row["id"], sent), 412, "precondition-failed")
    assert ada.revision == 2
    assert _change(ada, method, row["id"], f'"x", {new}').status_code in {200, 204}


@pytest.mark.parametrize(("weak", "suffix"), [("W/", ""), ("", "-gzip"), ("", "-br"), ("", ";gzip"), ("W/", "-zstd")])
def test_an_etag_that_a_compressing_proxy_has_altered_still_names_its_version(
    ada: Ledger, weak: str, suffix: str
) -> None:
    row = ada.add()
    before = f'{weak}{ada.get(row["id"]).headers["etag"][:-1]}{suffix}"'
    assert ada.get(row["id"], headers={"If-None-Match": before}).status_code == 304
    assert _change(ada, "PATCH", row["id"], before).status_code == 200
    assert_problem(_change(ada, "PATCH", row["id"], before), 412, "precondition-failed")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_if_match_with_an_asterisk_changes_any_version(ada: Ledger, method: str) -> None:
    assert _change(ada, method, ada.add()["id"], "*").status_code in {200, 204}
    assert_problem(_change(ada, method, 2**63 - 1, "*"), 404, "operation-not-found")


@pytest.mark.slow
def test_concurrent_changes_of_different_fields_both_survive(ada: Ledger) -> None:
    for number in range(5):
        row = ada.add()
        changes: list[dict[str, Any]] = [{"figi": f"f{number}"}, {"type": f"t{number}"}, {"quantity": "7"}]
        answers = at_once(*(partial(ada.patch, row["id"], **change) for change in changes))
        assert [answer.status_code for answer in answers] == [200] * 3
        kept = ada.get(row["id"]).json()
        assert (kept["figi"], kept["type"], kept["quantity"]) == (f"f{number}", f"t{number}", "7")


def test_one_of_several_concurrent_changes_with_the_same_if_match_wins(ada: Ledger) -> None:
    row = ada.add()
    match = {"If-Match": ada.get(row["id"]).headers["etag"]}
    answers = at_once(*(partial(ada.patch, row["id"], headers=match, figi=f"f{n}") for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5
    winner = next(answer for answer in answers if answer.status_code == 200)
    assert ada.get(row["id"]).json() == winner.json()
    assert ada.revision == 2

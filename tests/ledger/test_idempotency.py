"""Idempotency-Key: the same request again gives the first response and no second row, also when both race."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.support.assertions import assert_problem
from tests.support.ledgers import OPERATION, Ledger
from tests.support.servers import Muster


@pytest.fixture
def ada(muster: Muster) -> Ledger:
    return Ledger(muster)


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def outcome_of(answer: httpx.Response) -> tuple[object, ...]:
    return answer.status_code, answer.content, answer.headers.get("location"), answer.headers.get("etag")


def test_the_same_request_again_gives_the_first_response_and_no_second_row(ada: Ledger) -> None:
    first = ada.post(headers=keyed("a-key"))
    assert first.status_code == 201
    for again in (
        ada.post(headers=keyed("a-key")),
        ada.post(headers=keyed('"a-key"')),
        ada.call("POST", "", keyed("a-key"), json=dict(reversed({**OPERATION, "quantity": "1e1"}.items()))),
    ):
        assert outcome_of(again) == outcome_of(first)
    ada.patch(first.json()["id"], figi="other")
    assert outcome_of(ada.post(headers=keyed("a-key"))) == outcome_of(first)
    assert (len(ada.all()), ada.revision) == (1, 2)


def test_the_same_key_with_another_request_is_refused(ada: Ledger) -> None:
    ada.post(headers=keyed("k"))
    assert_problem(ada.post(headers=keyed("k"), figi="other"), 422, "idempotency-key-reused")
    assert_problem(
        ada.call("POST", "import", keyed("k"), content=b"type,figi,quantity,date\r\n"), 422, "idempotency-key-reused"
    )
    assert len(ada.all()) == 1


def test_an_idempotency_key_is_scoped_to_its_owner(ada: Ledger) -> None:
    other = Ledger(ada.muster)
    ids = {ledger.post(headers=keyed("k")).json()["id"] for ledger in (ada, other)}
    assert len(ids) == 2


@pytest.mark.slow
def test_50_posts_of_one_key_at_once_give_one_row_and_50_equal_responses(ada: Ledger) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ada.post(headers=keyed("race")), range(50)))
    assert len({outcome_of(answer) for answer in answers}) == 1
    assert answers[0].status_code == 201
    assert (len(ada.all()), ada.revision) == (1, 1)


def test_a_refused_request_leaves_its_key_free(ada: Ledger) -> None:
    assert_problem(ada.post(headers=keyed("k"), quantity="-1"), 422, "invalid")
    assert ada.post(headers=keyed("k")).status_code == 201


def test_an_expired_key_can_be_used_again(ada: Ledger) -> None:
    first = ada.post(headers=keyed("old"))
    before = datetime.now(UTC) - timedelta(days=180)
    stored = before.strftime("%Y-%m-%d %H:%M:%S.%f") if ada.muster.on_sqlite else before
    aged = 'UPDATE idempotency_key SET created_at = :t WHERE owner_id = (SELECT id FROM "user" WHERE email = :email)'
    ada.muster.sql(aged, t=stored, email=ada.account.email)
    second = ada.post(headers=keyed("old"), figi="other")
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    assert outcome_of(ada.post(headers=keyed("old"), figi="other")) == outcome_of(second)


@pytest.mark.parametrize("key", ["", '""', "a b", "é", "a" * 256, "a\tb", '"' + "a" * 256 + '"'], ids=ascii)
def test_an_invalid_key_is_rejected(ada: Ledger, key: str) -> None:
    headers = {**ada.tokens.bearer, "Content-Type": "application/json"}
    in_bytes = [(name.encode(), value.encode("latin-1")) for name, value in {**headers, **keyed(key)}.items()]
    answer = ada.muster.client.post("/api/operations", content=b"{}", headers=in_bytes)
    assert_problem(answer, 422, "invalid")
    assert ["header", "idempotency-key"] in [error["loc"] for error in answer.json()["errors"]]


def test_a_key_of_255_visible_characters_is_accepted(ada: Ledger) -> None:
    keys = ["".join(map(chr, range(0x21, 0x7F))), '"' + "k" * 255 + '"', "k" * 255]
    answers = [ada.post(headers=keyed(key)) for key in keys]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert answers[1].json() == answers[2].json() != answers[0].json()

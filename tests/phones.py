"""What the tests of the ledger share: somebody's operations over HTTP, and a phone that keeps a copy of them."""

import json
from typing import Any

import httpx

from tests.servers import Account, Muster, Tokens

PATH = "/api/operations"
# The body that the course sends.
COURSE: dict[str, Any] = {
    "quantity": "10",
    "figi": "string",
    "instrument_type": "BTC",
    "date": "2023-10-26T08:29:31.139Z",
    "type": "sell",
}
FIELDS = ("type", "instrument_type", "figi", "quantity", "date")


class Ledger:
    """A person of the test's own, and this person's operations."""

    def __init__(self, muster: Muster) -> None:
        self.muster = muster
        self.account: Account = muster.new_account()
        self.tokens: Tokens = self.account.sign_in()
        self.owner_id: str = muster.me(self.tokens).json()["id"]

    def call(
        self, method: str, path: str | int = "", headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """`json` is sent in ASCII, so that it may hold what UTF-8 does not."""
        url = f"{PATH}/{path}" if str(path)[:1] not in {"", "?"} else f"{PATH}{path}"
        sent = {**self.tokens.bearer, **(headers or {})}
        if "json" in more:
            more["content"] = json.dumps(more.pop("json"))
            sent["Content-Type"] = "application/json"
        return self.muster.client.request(method, url, headers=sent, **more)

    def get(self, path: str | int = "", *, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        return self.call("GET", path, headers, params=query or None)

    def post(self, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return self.call("POST", "", headers, json={**COURSE, **fields})

    def add(self, **fields: Any) -> dict[str, Any]:
        answer = self.post(**fields)
        assert answer.status_code == 201, answer.text
        row: dict[str, Any] = answer.json()
        return row

    def patch(self, operation_id: int, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return self.call("PATCH", operation_id, headers, json=fields)

    def delete(self, operation_id: int, *, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.call("DELETE", operation_id, headers)

    def all(self, **query: Any) -> list[dict[str, Any]]:
        """Every page of the list."""
        answer = self.get(**query)
        rows = list(answer.json())
        while "next" in answer.links:
            answer = self.muster.client.get(answer.links["next"]["url"], headers=self.tokens.bearer)
            rows += answer.json()
        return rows

    @property
    def revision(self) -> int:
        row = self.muster.sql('SELECT operations_revision FROM "user" WHERE email = :email', email=self.account.email)
        return int(row[0].operations_revision)

    def copy(self, model: dict[str, Any], count: int) -> None:
        """So many more of an operation, minute by minute; by SQL, for tests that need thousands."""
        later = "strftime('%Y-%m-%d %H:%M:%f000', date, n || ' minutes')"
        if "sqlite" not in self.muster.database_url:
            later = "date + n * interval '1 minute'"
        self.muster.sql(_COPY.replace("later", later), count=count, id=model["id"])
        self.muster.sql(_RAISE, count=count, email=self.account.email)

    def purge(self) -> None:
        """What a job will do one day: forget the tombstones, and say up to where."""
        self.muster.sql(_RAISE_FLOOR, email=self.account.email)
        self.muster.sql(_FORGET, email=self.account.email)


_COPY = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO operation (owner_id, type, instrument_type, figi, quantity, created_at, updated_at, date, revision)
SELECT owner_id, type, instrument_type, figi, quantity, created_at, updated_at, later, revision + n
FROM numbers, (SELECT * FROM operation WHERE id = :id) AS model
"""
_RAISE = 'UPDATE "user" SET operations_revision = operations_revision + :count WHERE email = :email'
_RAISE_FLOOR = """
UPDATE "user" SET operations_floor =
    (SELECT max(revision) FROM operation WHERE owner_id = "user".id AND deleted_at IS NOT NULL)
WHERE email = :email
"""
_FORGET = """
DELETE FROM operation
WHERE owner_id = (SELECT id FROM "user" WHERE email = :email) AND deleted_at IS NOT NULL
"""


class Phone:
    """An offline copy, kept up to date as the README tells clients to."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.copy: dict[int, dict[str, Any]] = {}
        self.next = 0
        self.revisions: list[int] = []

    def pull(self, *, limit: int = 3, full: bool = False) -> httpx.Response:
        """One request; what it answers is applied."""
        query: dict[str, Any] = {"since": self.next, "limit": limit, **({"full": "true"} if full else {})}
        answer = self.ledger.get("changes", **query)
        if answer.status_code == 200:
            self.apply(answer.json())
        return answer

    def apply(self, body: dict[str, Any]) -> None:
        for change in body["changes"]:
            self.revisions.append(change["revision"])
            if change.get("deleted_at"):
                assert change.keys() == {"id", "revision", "deleted_at"}
                self.copy.pop(change["id"], None)
            else:
                self.copy[change["id"]] = change
        self.next = body["next"]

    def sync(self, *, limit: int = 3, full: bool = False) -> None:
        while self.pull(limit=limit, full=full).json()["more"]:
            pass

    def has_all(self) -> bool:
        server = {row["id"]: row for row in self.ledger.all()}
        return self.copy == server

"""A person's ledger over HTTP: its operations, and those that a test inserts or purges beside the service."""

import json
from typing import Any

import httpx

from tests.support.servers import Account, Muster, Tokens

PATH = "/api/operations"
# The example body of an operation, with a time as JavaScript writes it.
OPERATION: dict[str, Any] = {
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
        self.tokens: Tokens = self.account.tokens()
        self.owner_id: str = muster.me(self.tokens).json()["id"]

    def call(
        self, method: str, path: str | int = "", headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """Call the ledger. `json` is sent in ASCII, so that it may contain what UTF-8 cannot encode."""
        url = f"{PATH}/{path}" if str(path)[:1] not in {"", "?"} else f"{PATH}{path}"
        sent = {**self.tokens.bearer, **(headers or {})}
        if "json" in more:
            more["content"] = json.dumps(more.pop("json"))
            sent["Content-Type"] = "application/json"
        return self.muster.client.request(method, url, headers=sent, **more)

    def get(self, path: str | int = "", *, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        return self.call("GET", path, headers, params=query or None)

    def post(self, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return self.call("POST", "", headers, json={**OPERATION, **fields})

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
        """The rows of all pages of the list."""
        answer = self.get(**query)
        rows = list(answer.json())
        while "next" in answer.links:
            answer = self.follow(answer)
            rows += answer.json()
        return rows

    def follow(self, answer: httpx.Response) -> httpx.Response:
        """The page that its Link header calls next."""
        return self.muster.client.get(answer.links["next"]["url"], headers=self.tokens.bearer)

    @property
    def revision(self) -> int:
        row = self.muster.sql('SELECT operations_revision FROM "user" WHERE email = :email', email=self.account.email)
        return int(row[0].operations_revision)

    def copy(self, model: dict[str, Any], count: int) -> None:
        """Insert that many copies of an operation, a minute apart; by SQL, for tests that need thousands."""
        later = "strftime('%Y-%m-%d %H:%M:%f000', date, n || ' minutes')"
        if "sqlite" not in self.muster.database_url:
            later = "date + n * interval '1 minute'"
        self.muster.sql(_COPY.replace("later", later), count=count, id=model["id"])
        self.muster.sql(_RAISE, count=count, email=self.account.email)

    def purge(self) -> None:
        """Delete the tombstones and raise the floor, as the purge job does."""
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
UPDATE "user" SET operations_floor = coalesce(
    (SELECT max(revision) FROM operation WHERE owner_id = "user".id AND deleted_at IS NOT NULL), operations_floor
)
WHERE email = :email
"""
_FORGET = """
DELETE FROM operation
WHERE owner_id = (SELECT id FROM "user" WHERE email = :email) AND deleted_at IS NOT NULL
"""

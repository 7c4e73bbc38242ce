"""Helpers for tests of the ledger: a user's operations over HTTP, and the reference client on an unreliable network."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from scripts.phone import Offline, Phone
from scripts.phone_demo import LossyTransport
from tests.support.servers import NO_TLS, Account, Muster, Tokens, claims_of
from tests.support.sessions import sign_access

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


class Network(LossyTransport):
    """A network that fails as a test wants, and notes what it carried."""

    def __init__(self) -> None:
        super().__init__(verify=NO_TLS)
        self.carried: list[httpx.Request] = []
        self.revisions: list[int] = []  # of the changes that arrived
        self.pages: int | None = None  # how many more of them it carries; None: all
        self.lost: set[int] = set()  # which responses from now on get lost: 0 is the next one

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asks_for_changes = request.url.path.endswith("/changes")
        if asks_for_changes and self.pages is not None:
            if self.pages == 0:
                raise httpx.ConnectError("the network has gone", request=request)
            self.pages -= 1
        self.carried.append(request)
        loses, self.lost = 0 in self.lost, {number - 1 for number in self.lost if number}
        self.loses = lambda _request: loses
        answer = super().handle_request(request)
        if asks_for_changes and answer.status_code == 200:
            answer.read()
            self.revisions += [change["revision"] for change in answer.json()["changes"]]
        return answer

    def sent(self, method: str, path: str) -> int:
        """The number of such requests that it carried."""
        return Counter((request.method, request.url.path) for request in self.carried)[method, path]


class Device:
    """A reference client on a network of the test's own; `reopen` is what a killed app finds when it starts again."""

    def __init__(
        self, ledger: Ledger, folder: Path, *, page: int = 3, sleep: Callable[[float], object] = lambda _seconds: None
    ) -> None:
        self.ledger, self.page, self.sleep = ledger, page, sleep
        self.file = folder / f"{uuid4().hex}.db"
        self.waits: list[float] = []  # how long it backed off, each time
        self.open()
        tokens = ledger.account.tokens()  # no password is hashed
        self._store("access = ?, refresh = ?", tokens.access, tokens.refresh)

    def _store(self, changes: str, *values: str) -> None:
        with closing(sqlite3.connect(self.file)) as file, file:
            file.execute(f"UPDATE state SET {changes}", values)  # noqa: S608  # written here

    def open(self) -> None:
        self.network = Network()
        self.phone = Phone(
            self.ledger.muster.url, self.file, page=self.page, transport=self.network, sleep=self._back_off
        )

    def _back_off(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.sleep(seconds)

    def reopen(self) -> None:
        self.phone.close()
        self.open()

    def pull(self, pages: int) -> None:
        """Sync, on a network that is lost after that many pages."""
        self.network.pages = pages
        with pytest.raises(Offline):
            self.phone.sync()
        self.network.pages = None

    def expire(self) -> str:
        """Put an access token that has expired in the place of the present one."""
        present = Tokens(access_token=self.phone.access)
        stale = sign_access(present, claims_of(present.access)["gen"], age=3600)
        self._store("access = ?", stale)
        return stale

    def has_all(self) -> bool:
        """Whether the phone's copy equals the server's list."""
        return self.phone.copy == {row["id"]: row for row in self.ledger.all()}


@contextmanager
def device_of(ledger: Ledger, folder: Path, **options: Any) -> Iterator[Device]:
    device = Device(ledger, folder, **options)
    try:
        yield device
    finally:
        device.phone.close()

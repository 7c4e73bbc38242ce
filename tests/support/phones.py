"""The reference client on an unreliable network."""

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
from tests.support.ledgers import Ledger
from tests.support.servers import NO_TLS, Tokens, claims_of
from tests.support.sessions import sign_access


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

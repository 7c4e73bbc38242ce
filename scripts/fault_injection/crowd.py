"""A crowd of phones that record operations all the while, and the count of those that were lost or doubled.

Each is the reference client: it repeats a write under its Idempotency-Key until the service acknowledges it. What was
acknowledged has to be in the database once, as it was last edited, and in the phone's copy.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import NamedTuple
from uuid import uuid4

import httpx
from sqlmodel import Session, col, select

from app.models.operation import Operation
from scripts.phone import Offline, Phone
from tests.support.servers import Account, Muster, wait_for

OPERATION = {"type": "buy", "instrument_type": "etf", "date": "2026-11-24T12:00:00Z"}
PATIENCE = 120.0  # seconds that a phone may take to deliver what it has queued, once everything is back
USUAL = frozenset({200, 201, 412})  # 412: a change was made, and its response lost
DROPPED = 0  # in the place of a status: the connection broke, or there was none


@dataclass
class Outcome:
    """The result of a scenario. `troubles` are sentences about whatever else went wrong."""

    name: str
    acknowledged: int
    lost: int
    doubled: int
    troubles: list[str]
    figures: str = ""

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.troubles)

    def __str__(self) -> str:
        counts = f"{self.acknowledged:>7} acknowledged, {self.lost} lost, {self.doubled} doubled"
        lines = [f"{self.name:<34} {counts}; {self.figures}", *(f"  {trouble}" for trouble in self.troubles)]
        return "\n".join(lines)


class ObservedResponse(NamedTuple):
    status: int
    seconds: float
    at: float  # on the clock of time.monotonic


class WatchedTransport(httpx.HTTPTransport):
    """A transport that notes every response, even those that the phone deals with by itself."""

    def __init__(self, responses: list[ObservedResponse]) -> None:
        super().__init__()
        self._responses = responses

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        started, status = time.monotonic(), DROPPED
        try:
            response = super().handle_request(request)
            status = response.status_code
            return response
        finally:
            now = time.monotonic()
            self._responses.append(ObservedResponse(status, now - started, now))


@dataclass
class Client:
    """A phone, and what the service has acknowledged to it: the quantity of each operation, by its unique figi."""

    account: Account
    phone: Phone
    acknowledged: dict[str, Decimal] = field(default_factory=dict)
    queued: dict[str, Decimal] = field(default_factory=dict)
    last: tuple[int, str] | None = None

    def record(self) -> None:
        """Queue a new operation, or every third time another quantity for the one before."""
        if self.last is None:
            figi = uuid4().hex
            self.last = (self.phone.add(**OPERATION, figi=figi, quantity="1"), figi)
            self.queued[figi] = Decimal(1)
        else:
            number, figi = self.last
            quantity = self.acknowledged[figi] + 1
            self.phone.edit(number, quantity=str(quantity))
            self.queued[figi] = quantity
            if quantity == 3:
                self.last = None

    def deliver(self) -> bool:
        """Sync; False if the service is away or busy."""
        try:
            self.phone.sync()
        except Offline:
            return False
        self.acknowledged |= self.queued
        self.queued.clear()
        return True


class Crowd:
    """`size` clients of a served instance. Their traffic is a `with` block; `outcome` counts at the end."""

    def __init__(self, muster: Muster, folder: Path, size: int) -> None:
        self.muster = muster
        self.responses: list[ObservedResponse] = []
        self._stopped = Event()
        with ThreadPoolExecutor(8) as pool:
            self.clients = list(pool.map(lambda _: self._client(folder), range(size)))

    def _client(self, folder: Path) -> Client:
        account = self.muster.new_account()
        transport = WatchedTransport(self.responses)
        phone = Phone(self.muster.url, folder / f"{uuid4().hex}.db", transport=transport, sleep=self._pause)
        phone.sign_in(account.email, account.password)
        return Client(account, phone)

    def _pause(self, seconds: float) -> None:
        """Phones are less patient than the service asks, so that more is under way when something breaks."""
        self._stopped.wait(min(seconds, 0.5))

    @contextmanager
    def traffic(self, seconds: float) -> Iterator[None]:
        """Traffic for some seconds before the block, during it and for some seconds after it."""
        self._stopped.clear()
        with ThreadPoolExecutor(len(self.clients)) as pool:
            clients = [pool.submit(self._go_on, client) for client in self.clients]
            try:
                time.sleep(seconds)
                yield
                time.sleep(seconds)
            finally:
                self._stopped.set()
        for client in clients:
            client.result()

    def _go_on(self, client: Client) -> None:
        while not self._stopped.is_set():
            if not client.queued:
                client.record()
            if not client.deliver():
                self._pause(0.5)

    def sync_all(self) -> None:
        """Sync every phone, once everything is back: it delivers what it has queued, and fetches what is new."""
        for client in self.clients:
            wait_for(client.deliver, what="a phone that delivers what it has queued", seconds=PATIENCE)

    def acknowledged(self) -> dict[str, Decimal]:
        return {figi: quantity for client in self.clients for figi, quantity in client.acknowledged.items()}

    def forget(self) -> None:
        """Forget, after a restore, the acknowledged operations that the database no longer has."""
        stored = self._stored()
        for client in self.clients:
            client.acknowledged = {figi: stored[figi][0] for figi in client.acknowledged if figi in stored}
            client.last = None

    def responses_since(self, moment: float) -> list[ObservedResponse]:
        return [response for response in self.responses if response.at >= moment]

    def slowest(self, since: float = 0) -> float:
        return max((response.seconds for response in self.responses_since(since)), default=0)

    def outcome(self, name: str, figures: str, *also_expected: int) -> Outcome:
        """Compare what was acknowledged with the database and with the copies. An unexpected status is a trouble."""
        self.sync_all()
        stored = self._stored()
        acknowledged = self.acknowledged()
        lost = sum(stored.get(figi, [Decimal(0)])[0] != quantity for figi, quantity in acknowledged.items())
        doubled = sum(len(stored.get(figi, [])) > 1 for figi in acknowledged)
        statuses = Counter(response.status for response in self.responses)
        troubles = [
            f"{count} responses of status {status}"
            for status, count in statuses.items()
            if status not in USUAL.union(also_expected)
        ]
        for client in self.clients:
            copied = {row["figi"]: Decimal(row["quantity"]) for row in client.phone.copy.values()}
            if copied != client.acknowledged:
                troubles.append("a phone's copy differs from what was acknowledged to it")
            troubles += [f"a write was refused: {write.refused}" for write in client.phone.refused]
            client.phone.close()
        shown = ", ".join(f"{count} of {status or 'no status'}" for status, count in sorted(statuses.items()))
        return Outcome(name, len(acknowledged), lost, doubled, troubles, f"{figures}; responses: {shown}")

    def _stored(self) -> dict[str, list[Decimal]]:
        """The quantities of every operation in the database, by figi."""
        stored: dict[str, list[Decimal]] = {}
        query = select(col(Operation.figi), col(Operation.quantity)).where(col(Operation.deleted_at).is_(None))
        with Session(self.muster.engine) as session:
            for figi, quantity in session.exec(query):
                stored.setdefault(figi, []).append(quantity)
        return stored

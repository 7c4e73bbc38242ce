"""The contenders of the comparison, with the same people and rows, and the requests they are sent."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
from sqlalchemy import insert, update
from sqlmodel import Session, select

from app.models.base import utcnow
from app.models.operation import Operation
from app.models.user import User
from scripts.benchmarks.load import Load, bearer, reads
from scripts.benchmarks.logins import ACCOUNTS, SignIn, people_of
from scripts.benchmarks.peer_servers import FastapiUsersPeer, NaivePeer, Peer
from scripts.benchmarks.testbed import Testbed, start_sessions
from tests.support.servers import Muster

OWNERS = 200
ROWS = 100  # of each owner
PAGE = 20
# With the log, the headers and the checks of production, behind a proxy; nothing here sends mail.
PRODUCTION = {"ENVIRONMENT": "production", "MAIL_URL": "smtp://127.0.0.1:9?tls=none", "TRUSTED_PROXIES": "127.0.0.1"}

_JSON = "Content-Type: application/json"
_FORM = "Content-Type: application/x-www-form-urlencoded"
_NEW = (
    '{"quantity": "10", "figi": "string", "instrument_type": "BTC", "date": "2023-10-26T08:29:31.139Z", "type": "sell"}'
)


@dataclass(frozen=True)
class Contender:
    """A running server with people who have a token and rows each, and others who sign in."""

    name: str
    served: Muster | Peer
    prefix: str
    tokens: Sequence[str]
    people: Sequence[SignIn]

    def me(self) -> Load:
        return reads(f"{self.prefix}/users/me", self.tokens)

    def page(self) -> Load:
        return reads(f"{self.prefix}/operations?limit={PAGE}", self.tokens)

    def create(self) -> Load:
        requests = [[bearer(token), _JSON, _NEW] for token in self.tokens]
        return Load(f"{self.prefix}/operations", requests, method="POST")

    def get(self, path: str, token: str, **headers: str) -> httpx.Response:
        answer = self.served.client.get(path, headers={"Authorization": f"Bearer {token}", **headers})
        if answer.is_error:
            raise SystemExit(f"muster: {self.name} answers {path} with {answer.status_code}: {answer.text}")
        return answer

    def check(self) -> None:
        """Stop unless this contender responds as the others do."""
        rows = len(self.get(self.page().path, self.tokens[-1]).json())
        if not self.get(self.me().path, self.tokens[-1]).json() or rows != PAGE:
            raise SystemExit(f"muster: {self.name} has {rows} rows on a page of {PAGE}")


@dataclass(frozen=True)
class MusterContender(Contender):
    """Muster, which is sent two more requests than the others."""

    database_url: str

    def unchanged(self) -> Load:
        """The list with If-None-Match: 304."""
        requests = [[bearer(token), f"If-None-Match: {self._tag(token)}"] for token in self.tokens]
        return Load(self.page().path, requests)

    def _tag(self, token: str) -> str:
        """The ETag of an owner's list, the same for every page of it."""
        return self.get(f"{self.prefix}/operations?limit=1", token).headers["ETag"]

    def check(self) -> None:
        super().check()
        token = self.tokens[-1]
        answer = self.get(self.page().path, token, **{"If-None-Match": self._tag(token)})
        if answer.status_code != 304:
            raise SystemExit(f"muster: an unchanged list is a {answer.status_code}, not a 304")

    def refresh(self) -> Load:
        """Refreshes as phones send them: each presents the token that it received last, in sessions of this load."""
        pairs = start_sessions(self.database_url, people=OWNERS)
        bodies = [f"grant_type=refresh_token&refresh_token={pair.refresh_token}" for pair in pairs]
        return Load(f"{self.prefix}/auth/token", [[_FORM, body] for body in bodies], method="POST", refreshes=True)


@contextmanager
def running_muster(testbed: Testbed, url: str) -> Iterator[MusterContender]:
    with testbed.muster(url, **PRODUCTION) as served:
        tokens = [pair.access_token for pair in start_sessions(url, people=OWNERS)]
        _fill(served)
        contender = MusterContender("Muster", served, "/api", tokens, people_of(served), url)
        contender.check()
        yield contender


def _fill(served: Muster) -> None:
    """Give every user the operations, with revisions in their order."""
    with Session(served.engine) as session:
        now = utcnow()
        common = {"created_at": now, "updated_at": now}
        rows = [
            {**row, **common, "owner_id": owner, "date": row["date"].replace(tzinfo=UTC), "revision": revision}
            for owner in session.exec(select(User.id)).all()
            for revision, row in enumerate(_operations(), 1)
        ]
        session.connection().execute(insert(Operation), rows)
        session.connection().execute(update(User).values(operations_revision=ROWS))
        session.commit()
    served.sql("ANALYZE")


@contextmanager
def running_peers(testbed: Testbed, kind: str) -> Iterator[list[Contender]]:
    with ExitStack() as stack:
        peers = []
        for name, peer in (("naive", NaivePeer), ("fastapi-users", FastapiUsersPeer)):
            url = stack.enter_context(testbed.database(kind, migrated=False))
            served: Peer = stack.enter_context(peer(url, testbed.folder))
            people = [partial(served.sign_in, served.register()) for _ in range(ACCOUNTS)]
            peers.append(Contender(name, served, served.prefix, served.fill(OWNERS, _operations()), people))
            peers[-1].check()
        yield peers


def _operations() -> list[dict[str, Any]]:
    """Operations an hour apart, in the columns that all have."""
    first = datetime(2026, 1, 1)  # noqa: DTZ001  # the peers keep their times without a zone
    fixed = {"quantity": Decimal("10.5"), "figi": "BBG000B9XRY4", "instrument_type": "share", "type": "buy"}
    return [{**fixed, "date": first + timedelta(hours=number)} for number in range(ROWS)]

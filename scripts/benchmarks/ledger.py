"""A ledger of a million operations beside a million of other people's: does any page cost more than the first?"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median

import httpx

from app.core.crypto import ValueSigner
from scripts.benchmarks.load import spread
from scripts.benchmarks.testbed import Testbed, watch_memory
from tests.support.databases import SECRET_KEY
from tests.support.servers import Account, Muster

ROWS = 1_000_000
OTHERS = 10  # people who share as many rows among themselves
PAGE = 50
REQUESTS = 100  # in a round
PATH = "/api/operations"
FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)  # one operation a minute from here

_FILL = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO operation (owner_id, type, instrument_type, figi, quantity, created_at, updated_at, date, revision)
SELECT id, 'buy', 'share', 'BBG000B9XRY4', '10.50000000', created_at, created_at, {minute}, n
FROM numbers, (SELECT id, created_at FROM "user" WHERE email = :email) AS owner
"""
_MINUTE = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', '2020-01-01', n || ' minutes')",
    "postgresql": "timestamptz '2020-01-01 00:00Z' + n * interval '1 minute'",
}
_RAISE = 'UPDATE "user" SET operations_revision = :count WHERE email = :email'


def pages(testbed: Testbed) -> None:
    """Page 1, page 1,000 and a page of changes of a million operations, beside a million of other people's"""
    for kind in testbed.databases:
        with testbed.database(kind) as url, testbed.muster(url) as served:
            bearer = _fill(served, kind).sign_in().bearer
            runs = {
                "page 1": f"{PATH}?limit={PAGE}",
                "page 1,000": f"{PATH}?limit={PAGE}&after={_cursor(999 * PAGE)}",
                "page 20,000": f"{PATH}?limit={PAGE}&after={_cursor(ROWS - PAGE)}",
                "changes": f"{PATH}/changes?limit={PAGE}&since={ROWS // 2}",
            }
            print(f"pages on {kind}: {testbed.rounds} interleaved rounds of {REQUESTS} requests")
            _report({name: partial(_time, served, bearer, address) for name, address in runs.items()}, testbed.rounds)


def _fill(served: Muster, kind: str) -> Account:
    """Insert the operations of the others, then ROWS operations of the owner, who is returned."""
    people = [(served.new_account(), ROWS // OTHERS) for _ in range(OTHERS)]
    people.append((served.new_account(), ROWS))
    for account, count in people:
        served.sql(_FILL.format(minute=_MINUTE[kind]), count=count, email=account.email)
        served.sql(_RAISE, count=count, email=account.email)
    served.sql("ANALYZE")
    return people[-1][0]


def _cursor(rows: int) -> str:
    """The cursor that skips this many rows, the newest first."""
    date = FIRST_DAY + timedelta(minutes=ROWS - rows + 1)
    # The id only matters between rows of the same minute, and each minute has one row.
    return ValueSigner([SECRET_KEY], "cursor").sign([date.isoformat(), "1"], PATH)


def _time(served: Muster, bearer: dict[str, str], address: str) -> float:
    """The mean milliseconds of a request; each has to return a full page."""
    started = time.perf_counter()
    for _ in range(REQUESTS):
        body = served.client.get(address, headers=bearer).raise_for_status().json()
        if len(body if isinstance(body, list) else body["changes"]) != PAGE:
            raise SystemExit(f"muster: {address} did not return a full page")
    return (time.perf_counter() - started) / REQUESTS * 1000


def _report(runs: dict[str, Callable[[], float]], rounds: int) -> None:
    """Print the medians; the first round is a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(rounds + 1):
        for name, run in runs.items():
            if (taken := run()) and round_number:
                times[name].append(taken)
    first = next(iter(times.values()))
    for name, own in times.items():
        ratios = [a / b for a, b in zip(own, first, strict=True)]
        print(
            f"  {name:<14} {median(own):.2f} ms ({spread(own)})  x {median(ratios):.2f} ({spread(ratios)})", flush=True
        )


def export(testbed: Testbed) -> None:
    """The export of a million operations: its time, and the memory that it takes"""
    for kind in testbed.databases:
        with testbed.database(kind) as url, testbed.muster(url) as served:
            bearer = _fill(served, kind).sign_in().bearer
            served.client.get(f"{PATH}?limit=200", headers=bearer).raise_for_status()
            with watch_memory(served) as memory:
                started = time.perf_counter()
                lines = _read_all(served.client, bearer)
                seconds = time.perf_counter() - started
            print(f"export on {kind}: {lines:,} lines in {seconds:.1f} s")
            print(f"  memory         {memory.before >> 20} MiB before, {memory.peak >> 20} MiB at most")


def _read_all(client: httpx.Client, bearer: dict[str, str]) -> int:
    with client.stream("GET", f"{PATH}/export", headers={**bearer, "Accept-Encoding": "identity"}) as answer:
        answer.raise_for_status()
        return sum(chunk.count(b"\n") for chunk in answer.iter_raw())

"""GET /api/users/me, which does what every request does: authenticate, count toward a limit, respond."""

from contextlib import ExitStack
from functools import partial

from scripts.benchmarks.load import CONNECTIONS, Wrk, interleave, reads, report
from scripts.benchmarks.testbed import Testbed
from tests.support.servers import Muster

PATH = "/api/users/me"


def me(testbed: Testbed) -> None:
    """GET /api/users/me beside the floor"""
    for kind in testbed.databases:
        with testbed.database(kind) as url:
            _compare(testbed, f"me on {kind}", url, floor=testbed.floor(url), muster=testbed.muster(url))


def log_line(testbed: Testbed) -> None:
    """The cost of the log line of each request: ENVIRONMENT=test against ENVIRONMENT=development"""
    for kind in testbed.databases:
        with testbed.database(kind) as url:
            logging = testbed.muster(url, ENVIRONMENT="development")
            _compare(testbed, f"log-line on {kind}", url, quiet=testbed.muster(url), logging=logging)


def _compare(testbed: Testbed, title: str, url: str, **contenders: Muster) -> None:
    """Put rounds of load on instances that share a database, after checking that their responses are the same."""
    tokens = testbed.access_tokens(url)
    wrk = Wrk(testbed.folder, reads(PATH, tokens))
    with ExitStack() as stack:
        for served in contenders.values():
            stack.enter_context(served)
        bearer = {"Authorization": f"Bearer {tokens[0]}"}
        responses = {served.client.get(PATH, headers=bearer).content for served in contenders.values()}
        if len(responses) != 1:
            raise SystemExit(f"muster: the responses differ: {responses}")
        runs = {name: partial(wrk.run, served, seconds=testbed.seconds) for name, served in contenders.items()}
        print(f"{title}: {CONNECTIONS} connections, {testbed.rounds} interleaved rounds of {testbed.seconds} s")
        report(interleave(testbed.rounds, runs))


def connections(testbed: Testbed) -> None:
    """Throughput at 32, 64, 200 and 1,000 connections"""
    for kind in testbed.databases:
        with testbed.database(kind) as url, testbed.muster(url) as served:
            wrk = Wrk(testbed.folder, reads(PATH, testbed.access_tokens(url)))
            counts = (32, 64, 200, 1000)
            runs = {f"{n} open": partial(wrk.run, served, seconds=testbed.seconds, connections=n) for n in counts}
            print(f"connections on {kind}: {testbed.rounds} interleaved rounds of {testbed.seconds} s")
            report(interleave(testbed.rounds, runs))

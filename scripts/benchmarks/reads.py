"""GET /api/users/me, the request that every other one contains: authentication, a limit, an answer."""

from contextlib import ExitStack
from functools import partial

from scripts.benchmarks.load import CONNECTIONS, Wrk, interleave, report
from scripts.benchmarks.testbed import Stage
from tests.support.servers import Muster


def me(stage: Stage) -> None:
    """GET /api/users/me beside the floor"""
    for kind in stage.databases:
        with stage.database(kind) as url:
            _compare(stage, f"me on {kind}", url, floor=stage.floor(url), muster=stage.muster(url))


def log_line(stage: Stage) -> None:
    """What the log line of each request costs: ENVIRONMENT=test against ENVIRONMENT=development"""
    for kind in stage.databases:
        with stage.database(kind) as url:
            logging = stage.muster(url, ENVIRONMENT="development")
            _compare(stage, f"log-line on {kind}", url, quiet=stage.muster(url), logging=logging)


def _compare(stage: Stage, title: str, url: str, **contenders: Muster) -> None:
    """Rounds of load on instances that share a database, after a look at whether they give the same answer."""
    tokens = stage.access_tokens(url)
    wrk = Wrk(stage.folder, tokens)
    with ExitStack() as stack:
        for served in contenders.values():
            stack.enter_context(served)
        bearer = {"Authorization": f"Bearer {tokens[0]}"}
        answers = {served.client.get("/api/users/me", headers=bearer).content for served in contenders.values()}
        if len(answers) != 1:
            raise SystemExit(f"muster: the answers differ: {answers}")
        runs = {name: partial(wrk.run, served, seconds=stage.seconds) for name, served in contenders.items()}
        print(f"{title}: {CONNECTIONS} connections, {stage.rounds} interleaved rounds of {stage.seconds} s")
        report(interleave(stage.rounds, runs))


def connections(stage: Stage) -> None:
    """Throughput at 32, 64, 200 and 1,000 connections"""
    for kind in stage.databases:
        with stage.database(kind) as url, stage.muster(url) as served:
            wrk = Wrk(stage.folder, stage.access_tokens(url))
            counts = (32, 64, 200, 1000)
            runs = {f"{n} open": partial(wrk.run, served, seconds=stage.seconds, connections=n) for n in counts}
            print(f"connections on {kind}: {stage.rounds} interleaved rounds of {stage.seconds} s")
            report(interleave(stage.rounds, runs))

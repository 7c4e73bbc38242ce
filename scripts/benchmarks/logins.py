"""Signing in: does its time reveal accounts, what does it do to other people's requests, and how does a burst end?"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from statistics import median, quantiles
from threading import Event, Thread

import httpx

from scripts.benchmarks.load import Sample, Wrk, interleave, reads, report
from scripts.benchmarks.testbed import Testbed, watch_memory
from tests.support.servers import PASSWORD, Muster

ATTEMPTS = 40
LOGINS_A_SECOND = 4
BURST = 100
ACCOUNTS = 20  # an account and a network allow eight attempts at a time, whatever the settings

SignIn = Callable[[], httpx.Response]


def login(testbed: Testbed) -> None:
    """Whether the time of a rejected login reveals if an account is known, unknown or disabled."""
    for kind in testbed.databases:
        with testbed.database(kind) as url, testbed.muster(url) as served:
            disabled = served.register().email
            served.sql('UPDATE "user" SET is_active = false WHERE email = :email', email=disabled)
            cases = {
                "known": _sign_in(served, served.register().email, "not-" + PASSWORD),
                "unknown": _sign_in(served, "nobody@example.com", PASSWORD),
                "disabled": _sign_in(served, disabled, PASSWORD),
            }
            print(f"login on {kind}: {ATTEMPTS} interleaved rejections each")
            _report_rejections(cases)


def _sign_in(served: Muster, email: str, password: str, address: str = "127.0.0.1") -> SignIn:
    form = {"grant_type": "password", "username": email, "password": password}
    return partial(served.client.post, "/api/auth/token", data=form, headers={"X-Forwarded-For": address})


def _report_rejections(cases: dict[str, SignIn]) -> None:
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ATTEMPTS):
        for name, sign_in in cases.items():
            status, milliseconds = _timed(sign_in)
            if status != 400:
                raise SystemExit(f"muster: a rejected login returned {status}")
            times[name].append(milliseconds)
    for name, own in times.items():
        differences = [a - b for a, b in zip(own, times["known"], strict=True)]
        lower, middle, upper = quantiles(differences, n=4)
        print(f"  {name:<14} median {median(own):.2f} ms, beside a known one {middle:+.2f} ms", end="")
        print(f" (quartiles {lower:+.2f} and {upper:+.2f})" if any(differences) else "")


def _timed(sign_in: SignIn) -> tuple[int, float]:
    started = time.perf_counter()
    status = sign_in().status_code
    return status, (time.perf_counter() - started) * 1000


def logins_beside_reads(testbed: Testbed) -> None:
    """The latency of 32 connections that read while 4 people a second sign in"""
    for kind in testbed.databases:
        with testbed.database(kind) as url, testbed.muster(url) as served:
            wrk = Wrk(testbed.folder, reads("/api/users/me", testbed.access_tokens(url)))
            read = partial(wrk.run, served, seconds=testbed.seconds)
            people = people_of(served)
            logins: list[tuple[int, float]] = []
            runs = {"quiet": read, "with logins": partial(beside_logins, read, people, logins)}
            print(f"logins-beside-reads on {kind}: {testbed.rounds} interleaved rounds of {testbed.seconds} s")
            report(interleave(testbed.rounds, runs))
            _report_logins(logins)


def people_of(served: Muster) -> list[SignIn]:
    return [_sign_in(served, served.new_account().email, PASSWORD, f"192.0.2.{n}") for n in range(ACCOUNTS)]


def beside_logins(read: Callable[[], Sample], people: Sequence[SignIn], logins: list[tuple[int, float]]) -> Sample:
    with _signing_in(people, logins):
        return read()


@contextmanager
def _signing_in(people: Sequence[SignIn], logins: list[tuple[int, float]]) -> Iterator[None]:
    """Sign in LOGINS_A_SECOND times a second, whether or not the earlier logins have finished."""
    stop = Event()

    def sign_in_steadily() -> None:
        endless = cycle(people)
        while not stop.wait(1 / LOGINS_A_SECOND):
            pool.submit(lambda sign_in: logins.append(_timed(sign_in)), next(endless))

    with ThreadPoolExecutor(max_workers=16) as pool:
        thread = Thread(target=sign_in_steadily)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def login_burst(testbed: Testbed) -> None:
    """100 logins at once: how many succeed, and the memory that they take"""
    for kind in testbed.databases:
        with testbed.database(kind) as url, testbed.muster(url, TRUSTED_PROXIES="127.0.0.1") as served:
            people = people_of(served)
            with watch_memory(served) as memory, ThreadPoolExecutor(max_workers=BURST) as pool:
                logins = [pool.submit(_timed, people[i % ACCOUNTS]) for i in range(BURST)]
            print(f"login-burst on {kind}: {BURST} logins at once")
            _report_logins([login.result() for login in logins])
            print(f"  memory         {memory.before >> 20} MiB before, {memory.peak >> 20} MiB at most")


def _report_logins(logins: Sequence[tuple[int, float]]) -> None:
    for status, count in sorted(Counter(status for status, _ in logins).items()):
        times = [milliseconds for own, milliseconds in logins if own == status]
        print(f"  login {status}      {count} times, median {median(times):.0f} ms, longest {max(times):.0f} ms")

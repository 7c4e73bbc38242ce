"""Limits of requests, by session and by address; whose address counts; in Redis, and without it."""

import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from uuid import uuid4

import httpx
import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.accounts.limits import AccountLimits
from app.core.cache import Cache
from app.core.redis import CLIENT_OPTIONS, CircuitBreaker
from tests.support.assertions import assert_limited
from tests.support.databases import fresh_database
from tests.support.redis_server import RedisServer
from tests.support.servers import PASSWORD, Muster, Tokens, wait_for

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

Serve = Callable[..., Muster]


@pytest.fixture(scope="module")
def narrow(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance behind a proxy, with small limits; each test comes from addresses of its own."""
    limits = {
        "LIMIT_REGISTER": "2/hour",
        "LIMIT_LOGIN_IP": "2/minute",
        "LIMIT_DEFAULT": "4/minute",
        "LIMIT_JOBS": "2/hour",
    }
    with (
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, TRUSTED_PROXIES="127.0.0.0/8,10.0.0.1", **limits) as served,
    ):
        yield served


def register(muster: Muster, address: str = "127.0.0.1") -> httpx.Response:
    body = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    return muster.client.post("/api/auth/register", json=body, headers={"X-Forwarded-For": address})


def sign_in(muster: Muster, email: str, address: str = "127.0.0.1", password: str = PASSWORD) -> httpx.Response:
    form = {"grant_type": "password", "username": email, "password": password}
    headers = [(b"X-Forwarded-For", address.encode("latin-1"))]
    return muster.client.post("/api/auth/token", data=form, headers=headers)


def wrong(muster: Muster, email: str) -> int:
    return sign_in(muster, email, password="a-wrong-password").status_code


# ---- Requests ----


def test_registrations_from_one_address_are_limited(narrow: Muster) -> None:
    assert [register(narrow, "192.0.2.1").status_code for _ in range(2)] == [201, 201]
    assert_limited(register(narrow, "192.0.2.1"), "request", "q=2;w=3600")


def test_sign_ins_from_one_address_are_limited_and_refreshes_are_not(narrow: Muster) -> None:
    tokens = sign_in(narrow, register(narrow, "192.0.2.2").json()["email"], "192.0.2.2").json()
    assert sign_in(narrow, "nobody@example.com", "192.0.2.2").status_code == 400
    assert_limited(sign_in(narrow, "somebody@example.com", "192.0.2.2"), "request", "q=2;w=60")
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    answers = [
        narrow.client.post("/api/auth/token", data=form, headers={"X-Forwarded-For": "192.0.2.3"}) for _ in "123"
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_an_ipv6_customer_has_four_times_the_limit_of_one_network(narrow: Muster) -> None:
    subnets = (1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 0x100)
    answers = [sign_in(narrow, "nobody@example.com", f"2001:db8:0:{subnet:x}::1") for subnet in subnets]
    assert [answer.status_code for answer in answers] == [400, 400, 429, *([400] * 6), 429, 400]


def test_a_session_has_one_window_per_route_whatever_the_id_in_the_path(narrow: Muster) -> None:
    email = register(narrow, "192.0.2.4").json()["email"]
    phone, tablet = (Tokens(sign_in(narrow, email, "192.0.2.4").json()) for _ in range(2))

    def forget(tokens: Tokens) -> httpx.Response:
        return narrow.client.delete(f"/api/users/me/sessions/{uuid4()}", headers=tokens.bearer)

    assert [forget(phone).status_code for _ in range(4)] == [404] * 4
    assert_limited(forget(phone), "request", "q=4;w=60")
    assert narrow.me(phone).status_code == 200
    assert forget(tablet).status_code == 404


def test_jobs_are_limited_per_person_across_sessions(narrow: Muster) -> None:
    account = narrow.new_account()
    answers = [narrow.client.post("/api/jobs/statement", json={}, headers=account.tokens().bearer) for _ in "123"]
    assert [answer.status_code for answer in answers[:2]] == [202, 202]
    assert_limited(answers[2], "request", "q=2;w=3600")


def test_without_a_session_the_address_is_counted(narrow: Muster) -> None:
    def verify() -> httpx.Response:
        headers = {"X-Forwarded-For": "192.0.2.5"}
        return narrow.client.post("/api/auth/verify-email", json={"token": uuid4().hex}, headers=headers)

    assert [verify().status_code for _ in range(4)] == [400] * 4
    assert_limited(verify(), "request", "q=4;w=60")


def test_requests_refused_before_their_route_runs_are_counted_too(narrow: Muster) -> None:
    def ask(method: str, path: str, address: str) -> httpx.Response:
        headers = {"X-Forwarded-For": address, "Authorization": "Bearer made.up.token"}
        return narrow.client.request(method, path, headers=headers, json={})

    for method, path, refused, address in [
        ("GET", "/api/users/me", 401, "192.0.2.6"),
        ("POST", "/api/auth/verify-email", 422, "192.0.2.7"),
    ]:
        assert [ask(method, path, address).status_code for _ in range(4)] == [refused] * 4
        assert_limited(ask(method, path, address), "request", "q=4;w=60")
        assert ask(method, path, "192.0.2.8").status_code == refused


def test_health_has_no_limit(narrow: Muster) -> None:
    assert {narrow.client.get("/health/ready").status_code for _ in range(10)} == {200}


# ---- The address of the client ----


def test_a_forwarded_address_from_a_stranger_is_not_trusted(serve: Serve) -> None:
    muster = serve(LIMIT_REGISTER="2/hour", TRUSTED_PROXIES="192.0.2.0/24")
    assert [register(muster, f"198.51.100.{n}").status_code for n in range(3)] == [201, 201, 429]


def test_a_trusted_proxy_names_the_client(narrow: Muster) -> None:
    # An address that the client itself sends stands to the left of the one that the proxy saw.
    same = ["198.51.100.1", "203.0.113.9, 198.51.100.1", "203.0.113.8, 198.51.100.1, 10.0.0.1"]
    assert [register(narrow, address).status_code for address in same] == [201, 201, 429]
    networks = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:1::3", "2001:db8:0:2::1"]  # a household's /64
    assert [register(narrow, address).status_code for address in networks] == [201, 201, 429, 201]


def test_a_session_shows_the_address_that_a_proxy_named_if_it_is_valid(serve: Serve) -> None:
    muster = serve(TRUSTED_PROXIES="127.0.0.1")
    email = muster.new_account().email
    named = {"203.0.113.7": "203.0.113.7", "2001:DB8::7": "2001:db8::7", "203.0.113.8:443": "203.0.113.8"}
    named |= dict.fromkeys(["x" * 300, "unknown", "<b>", "999.1.1.1", "\u00e9"], "unknown")
    for sent, shown in named.items():
        answer = sign_in(muster, email, sent)
        assert answer.status_code == 200, answer.text
        sessions = muster.client.get("/api/users/me/sessions", headers=Tokens(answer.json()).bearer).json()
        assert sessions[0]["ip"] == shown


# ---- Redis ----


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def test_processes_share_their_counts_in_redis_and_count_alone_without_it(serve: Serve, redis: RedisServer) -> None:
    settings = {"REDIS_URL": redis.url, "LIMIT_LOGIN_ACCOUNT": "2/5minute", "LIMIT_REGISTER": "3/hour"}
    first, second = serve(**settings), serve(**settings)
    emails = [register(muster).json()["email"] for muster in (first, second, first)]
    assert_limited(register(second), "request", "q=3;w=3600")
    assert [wrong(first, emails[0]), wrong(second, emails[0])] == [400, 400]
    assert_limited(sign_in(first, emails[0]), "password", "q=2;w=300")
    keys = list(redis.client.scan_iter())
    assert keys
    assert not [key for key in keys if b"@" in key], "a dump of Redis names nobody"

    with redis.stopped():
        for muster in (first, second):
            assert [wrong(muster, emails[1]) for _ in range(3)] == [400, 400, 429]
            assert [register(muster).status_code for _ in range(4)] == [201, 201, 201, 429]
            assert sign_in(muster, emails[2]).status_code == 200
            assert "Redis is unavailable: ConnectionError" in muster.log
    for muster in (first, second):
        wait_for(lambda muster=muster: counts_in(redis, muster), what="its return to Redis")  # type: ignore[misc]
    # The first slow reply of Redis would make one of them count by itself once more.
    wait_for(lambda: count_together(first, second), what="counting together again")


def count_together(first: Muster, second: Muster) -> bool:
    """Whether two wrong passwords at different instances leave no third attempt at either."""
    email = f"{uuid4().hex}@example.com"
    return [wrong(muster, email) for muster in (first, second, first, second)] == [400, 400, 429, 429]


def counts_in(redis: RedisServer, muster: Muster) -> bool:
    """Whether this instance counts a request in Redis, and not by itself."""
    redis.client.flushall()
    muster.client.post("/api/auth/verify-email", json={"token": "x"})
    return redis.client.dbsize() > 0


def test_no_request_fails_when_redis_does(serve: Serve, redis: RedisServer) -> None:
    muster = serve(REDIS_URL=redis.url)
    phone = muster.new_account().tokens()
    answers: Counter[int] = Counter()
    enough = Event()

    def use() -> None:
        with muster.another_client() as client:
            while not enough.wait(0.05):
                answers[client.get("/api/operations/summary", headers=phone.bearer).status_code] += 1
                answers[
                    client.post("/api/chat/messages", json={"text": "Hello"}, headers=phone.bearer).status_code
                ] += 1
                answers[client.post("/api/auth/verify-email", json={"token": "x"}).status_code] += 1

    def answer_more() -> None:
        goal = answers.total() + 50
        wait_for(lambda: answers.total() > goal, what="some responses")

    with ThreadPoolExecutor(8) as pool:
        users = [pool.submit(use) for _ in range(8)]
        try:
            for outage in (redis.stopped, redis.frozen, redis.out_of_memory):
                answer_more()
                before = storage_failures(muster)
                with outage():
                    wait_for(lambda before=before: storage_failures(muster) > before, what="a failure")  # type: ignore[misc]
                    answer_more()
            answer_more()
        finally:
            enough.set()
            for user in users:
                user.result()
    assert set(answers) == {200, 201, 400}


def storage_failures(muster: Muster) -> float:
    counted = re.search(r"^muster_limit_storage_failures_total (\S+)", muster.client.get("/metrics").text, re.MULTILINE)
    return float(counted[1]) if counted else 0


def test_one_call_waits_for_an_unavailable_redis_and_the_next_ones_skip_it(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker, attempts = CircuitBreaker(), 0

    def fail() -> str:
        nonlocal attempts
        attempts += 1
        raise RedisTimeoutError

    def call(use: Callable[[], str]) -> str:
        return breaker.call(use, lambda: "alone")

    monkeypatch.setattr("app.core.redis.PAUSE", 60)
    assert [call(fail) for _ in range(3)] == ["alone"] * 3
    assert attempts == 1
    monkeypatch.setattr("app.core.redis.monotonic", lambda: time.monotonic() + 61)
    assert [call(fail), call(lambda: "found")] == ["alone", "alone"]
    monkeypatch.setattr("app.core.redis.monotonic", lambda: time.monotonic() + 122)
    assert [call(lambda: call(fail)), call(lambda: "found")] == ["alone", "found"]
    assert attempts == 2


def test_two_slow_replies_of_redis_in_a_row_count_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker, now = CircuitBreaker(), 1000.0
    monkeypatch.setattr("app.core.redis.monotonic", lambda: now)

    def call(seconds: float) -> str:
        def use() -> str:
            nonlocal now
            now += seconds
            return "found"

        return breaker.call(use, lambda: "alone")

    assert [call(seconds) for seconds in (0.4, 0.0, 0.4, 0.4, 0.4)] == ["found"] * 4 + ["alone"]
    now += 1.1
    assert [call(seconds) for seconds in (0.4, 0.0)] == ["found", "alone"]  # one attempt, as slow as before
    now += 1.1
    assert [call(seconds) for seconds in (0.0, 0.4, 0.0)] == ["found"] * 3


@pytest.mark.parametrize(
    ("use", "command"),
    [
        (lambda url: Cache(url).get_or_make(uuid4(), 1, "query", lambda: b"computed"), b"\r\nGET\r\n"),
        (lambda url: AccountLimits("2/minute", url).count_attempt("ada", "127.0.0.1"), b"\r\nEVALSHA\r\n"),
    ],
    ids=["cache", "account limits"],
)
def test_a_silent_redis_is_sent_one_command_and_no_handshake(use: Callable[[str], object], command: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(65536)[:40].count(command) == 1
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert CLIENT_OPTIONS["socket_connect_timeout"] + CLIENT_OPTIONS["socket_timeout"] <= 1


def test_the_service_starts_while_redis_is_unavailable(serve: Serve, redis: RedisServer) -> None:
    redis.stop()
    muster = serve(REDIS_URL=redis.url, LIMIT_LOGIN_ACCOUNT="2/5minute")
    email = register(muster).json()["email"]
    assert sign_in(muster, email).status_code == 200
    assert [wrong(muster, email) for _ in range(3)] == [400, 400, 429]

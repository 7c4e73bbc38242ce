"""Rate limits: slowapi counts the requests of routes, its engine `limits` counts wrong passwords, mails and sockets.

Both count in Redis when REDIS_URL is set. While Redis is unreachable, each process counts for itself.
"""

import hashlib
import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar
from uuid import UUID

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerHour, parse_many
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter
from slowapi import Limiter
from starlette.requests import HTTPConnection

from app.core import metrics
from app.core.errors import TooManyRequests
from app.core.logs import security_event
from app.core.redis import TIMEOUTS, circuit_breaker
from app.core.settings import get_settings

# However many networks an attacker owns, an account is guessed at most this often.
ACCOUNT_CEILING = RateLimitItemPerHour(100)
# Mails of one kind to one recipient, whoever asks. The newest of ten links still works when another is refused.
MAIL_CEILING = RateLimitItemPerHour(10)
_SWEEP = 60  # seconds between two removals of expired entries from this process's memory

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Result = TypeVar("Result")


# ---- Who is counted ----


def client_address(request: HTTPConnection) -> str:
    """The client's IP address, as app/http/proxies.py has determined it."""
    host = request.client.host if request.client else ""
    try:
        return str(ip_address(host))
    except ValueError:
        return "unknown"  # a proxy may pass on anything


def networks(address: str) -> list[str]:
    """The networks of an address that one household, office or customer may own: in IPv4 the address itself, in IPv6
    its /64, /56 and /48."""
    if ":" not in address:
        return [address]
    return [str(ip_network(f"{address}/{prefix}", strict=False)) for prefix in (64, 56, 48)]


def network(address: str) -> str:
    return networks(address)[0]


def by_network(request: HTTPConnection, larger: int = 0) -> str:
    """The client's network or, where it has larger ones, the one that is `larger` steps larger."""
    return networks(client_address(request))[: larger + 1][-1]


def by_session(request: Request) -> str:
    """The session once it is authenticated (app/authentication.py notes it), else the network."""
    session_id = getattr(request.state, "session_id", None)
    return str(session_id) if session_id else by_network(request)


def by_person(request: Request) -> str:
    """The account, however many sessions it has; else the network."""
    user_id = getattr(request.state, "user_id", None)
    return str(user_id) if user_id else by_network(request)


# slowapi asks for the signature at every request, which took 3 % of it; an attribute of this name answers at once.
for _key in (by_network, by_session, by_person):
    _key.__signature__ = inspect.signature(_key)  # type: ignore[attr-defined]  # where inspect looks first


# ---- Requests: slowapi ----


class LocalStorage(MemoryStorage):
    """The moving windows of this process, swept once a minute.

    The class it extends starts a thread every 10 ms that walks all of them, which took a fifth of the CPU at 500
    sessions and more with every session.
    """

    STORAGE_SCHEME = ["local"]  # noqa: RUF012  # limits registers the class under it, and types it as a list
    _swept_at = 0.0

    def _MemoryStorage__schedule_expiry(self) -> None:  # noqa: N802  # overrides the private method of that name
        if time.time() > self._swept_at + _SWEEP:
            self._swept_at = time.time()
            super()._MemoryStorage__schedule_expiry()  # type: ignore[misc]  # private, hence unknown to mypy


class SharedStorage(RedisStorage):
    """Moving windows in Redis, or in this process while Redis is unavailable.

    slowapi's own fallback catches the failure of one thread, and answers those of the others with a 500.
    """

    STORAGE_SCHEME = ["redis", "rediss"]  # noqa: RUF012  # the same; slowapi finds it under the scheme of REDIS_URL

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri, **options)
        self._local, self._breaker = LocalStorage(), circuit_breaker(uri)

    def acquire_entry(self, *arguments: Any, **options: Any) -> bool:
        return self._either(super().acquire_entry, self._local.acquire_entry, *arguments, **options)

    def get_moving_window(self, *arguments: Any) -> tuple[float, int]:
        return self._either(super().get_moving_window, self._local.get_moving_window, *arguments)

    def clear(self, key: str) -> None:
        self._either(super().clear, self._local.clear, key)

    def _either(
        self, shared: Callable[..., Result], local: Callable[..., Result], *arguments: Any, **options: Any
    ) -> Result:
        def count_here() -> Result:
            metrics.count("limit_storage_failures")
            return local(*arguments, **options)

        return self._breaker.call(lambda: shared(*arguments, **options), count_here)


_PREFIX = "muster"
_settings = get_settings()
limiter = Limiter(
    key_func=by_session,
    strategy="moving-window",
    storage_uri=_settings.redis_url or "local://",
    storage_options=TIMEOUTS if _settings.redis_url else {},
    key_style="endpoint",  # one window for /users/{id}, whatever the id
    key_prefix=_PREFIX,
)


@dataclass(frozen=True, slots=True)
class RouteLimit:
    """A limit in slowapi's notation. Routes whose limits have the same `scope` count together."""

    limit: str
    key: Callable[[Request], str] = by_network
    scope: str | None = None
    exempt_when: Callable[[Request], bool] | None = None
    replaces_default: bool = False


def limited(
    limit: str,
    *,
    key: Callable[[Request], str] = by_network,
    shared: str | None = None,
    exempt_when: Callable[[Request], bool] | None = None,
) -> Callable[[Endpoint], Endpoint]:
    """Give a route a limit of its own beside LIMIT_DEFAULT."""
    return _mark(RouteLimit(limit, key, shared, exempt_when))


def limited_instead(limit: str) -> Callable[[Endpoint], Endpoint]:
    """Count a route's requests by `limit` instead of LIMIT_DEFAULT, by session as well."""
    return _mark(RouteLimit(limit, by_session, replaces_default=True))


def _mark(limit: RouteLimit) -> Callable[[Endpoint], Endpoint]:
    """Note the limit on the function: app/http/routing.py reads it, since slowapi would count on the event loop."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.limits = (*getattr(endpoint, "limits", ()), limit)  # type: ignore[attr-defined]  # a note
        return endpoint

    return mark


def request_check(endpoint: Callable[..., Any]) -> Callable[[Request], None]:
    """A function that counts a request to `endpoint` or raises RateLimitExceeded. With Redis it blocks."""
    limits: tuple[RouteLimit, ...] = getattr(endpoint, "limits", ())
    if not any(limit.replaces_default for limit in limits):
        limits = (RouteLimit(_settings.limit_default, by_session), *limits)
    return _check(endpoint, endpoint.__name__, *limits)


def refusal_check(endpoint: Callable[..., Any]) -> Callable[[Request], None]:
    """Like request_check, for requests that are rejected before `endpoint` runs, such as by a 401, in a window of their
    own."""
    return _check(endpoint, f"{endpoint.__name__}/refused", RouteLimit(_settings.limit_default, by_session))


def network_check(endpoint: Callable[..., Any]) -> Callable[[Request], None]:
    """A function that rejects a network which has used up a window, before the request's body is read.

    It counts nothing: the caller, and whether the request is valid, are not known yet.
    """
    name = f"{endpoint.__module__}.{endpoint.__name__}"
    own = [limit for limit in getattr(endpoint, "limits", ()) if limit.key is by_network and limit.exempt_when is None]
    scopes = {limit.scope or name: limit.limit for limit in own} | {f"{name}/refused": _settings.limit_default}
    windows = [(item, scope) for scope, limit in scopes.items() for item in parse_many(limit)]

    def check(request: Request) -> None:
        for item, scope in windows:
            arguments = (_PREFIX, by_network(request), scope)
            if not limiter.limiter.test(item, *arguments):
                raise _refusal(item, limiter.limiter.get_window_stats(item, *arguments).reset_time, "request")

    return check


def _check(endpoint: Callable[..., Any], name: str, *limits: RouteLimit) -> Callable[[Request], None]:
    def check(request: Request) -> None:  # slowapi looks for it by name
        """slowapi has counted before it calls this."""

    check.__module__, check.__name__ = endpoint.__module__, name  # slowapi keeps its limits by this name
    for limit in limits:
        scope = limit.scope or f"{endpoint.__module__}.{name}"
        check = limiter.shared_limit(limit.limit, scope, key_func=limit.key, exempt_when=limit.exempt_when)(check)
        for larger in (1, 2) if limit.key is by_network else ():
            key, most = partial(by_network, larger=larger), _times(limit.limit, 4**larger)
            check = limiter.shared_limit(most, scope, key_func=key, exempt_when=limit.exempt_when)(check)
    return check


def _times(limit: str, factor: int) -> str:
    items = parse_many(limit)
    return ";".join(f"{item.amount * factor} per {item.multiples} {item.GRANULARITY.name}" for item in items)


def is_counted(request: Request) -> bool:
    return hasattr(request.state, "view_rate_limit")  # slowapi's note


def too_many_requests(request: HTTPConnection) -> TooManyRequests:
    """The response to slowapi's RateLimitExceeded. It may block on Redis."""
    item, arguments = request.state.view_rate_limit
    return _refusal(item, limiter.limiter.get_window_stats(item, *arguments).reset_time, "request")


def _refusal(item: RateLimitItem, reset_time: float, kind: str) -> TooManyRequests:
    """A 429 with the RateLimit fields of the IETF draft."""
    metrics.count("limit_hits", kind=kind)
    if kind == "password":
        security_event("wrong passwords refused", within_seconds=item.get_expiry())
    seconds = max(1, math.ceil(reset_time - time.time()))
    return TooManyRequests(
        headers={
            "Retry-After": str(seconds),
            "RateLimit-Policy": f'"{kind}";q={item.amount};w={item.get_expiry()}',
            "RateLimit": f'"{kind}";r=0;t={seconds}',
        }
    )


# ---- Everything else: windows beside slowapi's ----


class MovingWindows:
    """Moving windows in Redis, or in this process without it. Every method may block."""

    def __init__(self, limit: str, redis_url: str | None) -> None:
        self._items = parse_many(limit)
        self._windows = MovingWindowRateLimiter(SharedStorage(redis_url, **TIMEOUTS) if redis_url else LocalStorage())

    def hit(self, key: tuple[str, ...], kind: str) -> None:
        """Count one, or raise TooManyRequests if that is one too many."""
        for item in self._items:
            if not self._windows.hit(item, *key):
                raise self._refusal(item, key, kind)

    def _refusal(self, item: RateLimitItem, key: tuple[str, ...], kind: str) -> TooManyRequests:
        return _refusal(item, self._windows.get_window_stats(item, *key).reset_time, kind)


class ChatLimits:
    """Messages of one user over every transport; sockets of one session, or failed openings from one network."""

    def __init__(self, messages: str, openings: str, redis_url: str | None) -> None:
        self._messages, self._openings = MovingWindows(messages, redis_url), MovingWindows(openings, redis_url)

    def message(self, user_id: UUID) -> None:
        self._messages.hit(("chat", str(user_id)), "message")

    def opening(self, key: str) -> None:
        self._openings.hit(("socket", key), "socket")


class AccountLimits(MovingWindows):
    """Wrong passwords of one account: few from one network, a high ceiling from all. Unknown accounts count alike.

    An attempt is counted for its networks before its hash is computed, so that racing attempts cannot pass together;
    the right password gives those networks' attempts back. The ceiling counts wrong passwords only, once they are
    known to be wrong: the owner's sign-ins neither reach it nor make room for a guesser.
    """

    def attempt(self, account: str, address: str) -> None:
        """Count one attempt; raise TooManyRequests if it is one too many for its networks."""
        for one in networks(address):
            self.hit((_account_key(account), one), "password")

    def check_ceiling(self, account: str) -> None:
        """Raise TooManyRequests once there were too many wrong passwords from everywhere."""
        key = (_account_key(account), "all")
        if not self._windows.test(ACCOUNT_CEILING, *key):
            raise self._refusal(ACCOUNT_CEILING, key, "password")

    def proof(self, user_id: UUID) -> None:
        """Count a proof of the current password by somebody who is signed in; nothing gives it back."""
        self.hit((_account_key(f"proof/{user_id}"),), "password")

    def failed(self, account: str) -> None:
        """Count a wrong password towards the ceiling."""
        self._windows.hit(ACCOUNT_CEILING, _account_key(account), "all")

    def succeeded(self, account: str, address: str) -> None:
        for one in networks(address):
            for item in self._items:
                self._windows.clear(item, _account_key(account), one)

    def recovered(self, account: str, address: str) -> None:
        """Forget the wrong passwords of an account whose owner has reset it."""
        self.succeeded(account, address)
        self._windows.clear(ACCOUNT_CEILING, _account_key(account), "all")

    def mail(self, recipient: str, address: str) -> None:
        """Count a requested mail by the same numbers; nothing gives an attempt back."""
        self.attempt(f"mail/{recipient}", address)

    def may_mail(self, recipient: str, template: str) -> bool:
        """Count a mail that is about to be sent; False if it is one too many for its recipient."""
        is_within = self._windows.hit(MAIL_CEILING, _account_key(f"to/{recipient}"), template)
        if not is_within:
            metrics.count("limit_hits", kind="mail")
        return is_within


def _account_key(account: str) -> str:
    """A hash: addresses stay out of Redis, and a dump of it names nobody."""
    return "login/" + hashlib.sha256(account.encode()).hexdigest()[:32]

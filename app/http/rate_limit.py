"""Limits: slowapi's decorator for requests, its engine `limits` for the wrong passwords of an account.

Both count in Redis when REDIS_URL is set. While Redis is away each process counts for itself.
"""

import hashlib
import math
import time
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerHour, parse_many
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from slowapi import Limiter
from starlette.requests import HTTPConnection

from app.core import metrics
from app.core.errors import TooManyRequests
from app.core.logs import security_event
from app.core.settings import get_settings
from app.http.buckets import Buckets

# However many networks an attacker owns, an account is guessed at most this often.
ACCOUNT_CEILING = RateLimitItemPerHour(100)
_REDIS: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 1, "wrap_exceptions": True}  # seconds


def client_address(request: HTTPConnection) -> str:
    """The client's IP; of X-Forwarded-For only what TRUSTED_PROXIES vouch for (main.py)."""
    host = request.client.host if request.client else ""
    try:
        return str(ip_address(host))
    except ValueError:
        return "unknown"  # a proxy may pass on anything


def network(address: str) -> str:
    """What one household or office shares: the address in IPv4, the /64 in IPv6."""
    try:
        return str(ip_network(f"{address}/64", strict=False)) if ip_address(address).version == 6 else address
    except ValueError:
        return address


def by_network(request: Request) -> str:
    return network(client_address(request))


def by_session(request: Request) -> str:
    """The session once it is authenticated (authentication.py notes it), else the network."""
    session_id = getattr(request.state, "session_id", None)
    return str(session_id) if session_id else by_network(request)


_settings = get_settings()
limiter = Limiter(
    key_func=by_session,
    strategy="moving-window",
    storage_uri=_settings.redis_url or "buckets://",
    storage_options=_REDIS if _settings.redis_url else {},
    in_memory_fallback_enabled=bool(_settings.redis_url),
    key_style="endpoint",  # one bucket for /users/{id}, whatever the id
    key_prefix="muster",
)


def limited(
    limit: str,
    *,
    key: Callable[[Request], str] = by_network,
    shared: str | None = None,
    exempt_when: Callable[[Request], bool] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a route with a limit of its own beside LIMIT_DEFAULT; app/http/routing.py applies both through slowapi.
    Routes that name the same `shared` count together."""

    def mark(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        marks = getattr(endpoint, "limits", ())
        endpoint.limits = (*marks, (limit, key, shared, exempt_when))  # type: ignore[attr-defined]  # a note on the function
        return endpoint

    return mark


def limited_instead(limit: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a route whose requests count by `limit` in place of LIMIT_DEFAULT, by session all the same."""

    def mark(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        endpoint.default_limit = limit  # type: ignore[attr-defined]  # a note on the function
        return endpoint

    return mark


def request_check(endpoint: Callable[..., Any]) -> Callable[[Request], None]:
    """Counts a request to `endpoint`, or raises RateLimitExceeded. With Redis it does I/O: call it in a thread."""
    by_default = getattr(endpoint, "default_limit", _settings.limit_default)
    counted = _counted(by_default, endpoint, endpoint.__name__)
    for limit, key, shared, exempt_when in getattr(endpoint, "limits", ()):
        name = shared or f"{endpoint.__module__}.{endpoint.__name__}"
        counted = limiter.shared_limit(limit, name, key_func=key, exempt_when=exempt_when)(counted)
    return counted


def refusal_check(endpoint: Callable[..., Any]) -> Callable[[Request], None]:
    """The same for a request that was refused before `endpoint` ran, such as a 401: counted apart, by LIMIT_DEFAULT."""
    return _counted(_settings.limit_default, endpoint, f"{endpoint.__name__}/refused")


def is_counted(request: Request) -> bool:
    return hasattr(request.state, "view_rate_limit")  # slowapi's note


def _counted(limit: str, endpoint: Callable[..., Any], name: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:  # noqa: ARG001  # slowapi looks for it by name
        """slowapi counts before it calls this: in this process while Redis is away, which is counted too."""
        if limiter._storage_dead:  # noqa: SLF001  # it has no public sign of it
            metrics.count("limit_storage_failures")

    check.__module__, check.__name__ = endpoint.__module__, name  # what slowapi names the bucket by
    counted: Callable[[Request], None] = limiter.limit(limit)(check)
    return counted


def too_many_requests(request: HTTPConnection) -> TooManyRequests:
    """The answer to slowapi's RateLimitExceeded, with the IETF draft's RateLimit fields. It may do I/O."""
    item, arguments = request.state.view_rate_limit
    return _refusal(item, limiter.limiter.get_window_stats(item, *arguments).reset_time, "request")


def _refusal(item: RateLimitItem, reset_time: float, kind: str) -> TooManyRequests:
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


class Windows:
    """Moving windows beside slowapi's: in Redis, or in this process without it and while it is away."""

    def __init__(self, limit: str, redis_url: str | None) -> None:
        self._items = parse_many(limit)
        self._local = MovingWindowRateLimiter(Buckets())
        self._shared = MovingWindowRateLimiter(RedisStorage(redis_url, **_REDIS)) if redis_url else None

    def hit(self, key: tuple[str, ...], kind: str) -> None:
        """Count one, or raise TooManyRequests when it is one too many. It may do I/O, as each method here."""
        for item in self._items:
            if not self._on_storage(partial(_hit, item=item, key=key)):
                raise self._refusal(item, key, kind)

    def _refusal(self, item: RateLimitItem, key: tuple[str, ...], kind: str) -> TooManyRequests:
        stats = self._on_storage(lambda window: window.get_window_stats(item, *key))
        return _refusal(item, stats.reset_time, kind)

    def _on_storage(self, use: Callable[[MovingWindowRateLimiter], Any]) -> Any:
        if self._shared is not None:
            try:
                return use(self._shared)
            except StorageError:
                metrics.count("limit_storage_failures")
        return use(self._local)


class ChatLimits:
    """Chat messages of one person, however they are sent; sockets that one session opens, or one network in vain."""

    def __init__(self, messages: str, openings: str, redis_url: str | None) -> None:
        self._messages, self._openings = Windows(messages, redis_url), Windows(openings, redis_url)

    def message(self, user_id: UUID) -> None:
        self._messages.hit(("chat", str(user_id)), "message")

    def opening(self, key: str) -> None:
        self._openings.hit(("socket", key), "socket")


class AccountLimits(Windows):
    """Wrong passwords of one account: few from one network, a high ceiling from all. Unknown accounts count alike.

    An attempt is counted for its network before its hash is computed, so that racing attempts cannot pass together;
    the right password gives that network's attempts back. The ceiling counts wrong passwords alone, once they are
    known to be wrong: the owner's sign-ins neither reach it nor make room for a guesser.
    """

    def attempt(self, account: str, address: str) -> None:
        """Count one attempt; raise TooManyRequests when it is one too many."""
        name = _account_key(account)
        self.hit((name, network(address)), "password")
        if not self._on_storage(lambda window: window.test(ACCOUNT_CEILING, name, "all")):
            raise self._refusal(ACCOUNT_CEILING, (name, "all"), "password")

    def failed(self, account: str) -> None:
        """The attempt was wrong: one towards the ceiling."""
        name = _account_key(account)
        self._on_storage(partial(_hit, item=ACCOUNT_CEILING, key=(name, "all")))

    def succeeded(self, account: str, address: str) -> None:
        for item in self._items:
            key = (_account_key(account), network(address))
            self._on_storage(partial(_clear, item=item, key=key))

    def mail(self, address_of_mail: str, address: str) -> None:
        """Count a mail that somebody asks for, by the same numbers: there is no right one that gives it back."""
        account = f"mail/{address_of_mail}"
        self.attempt(account, address)
        self.failed(account)


def _account_key(account: str) -> str:
    """Addresses stay out of Redis: a dump of it names nobody."""
    return "login/" + hashlib.sha256(account.encode()).hexdigest()[:32]


def _hit(window: MovingWindowRateLimiter, *, item: RateLimitItem, key: tuple[str, ...]) -> bool:
    return window.hit(item, *key)


def _clear(window: MovingWindowRateLimiter, *, item: RateLimitItem, key: tuple[str, str]) -> None:
    window.clear(item, *key)

"""Rate limits of routes, by slowapi: whose requests are counted, and how a route is given a limit of its own.

Wrong passwords, mails and sockets are counted beside it: app/accounts/limits.py and app/services.py.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, TypeVar

from fastapi import Request
from limits import parse_many
from slowapi import Limiter
from starlette.requests import HTTPConnection

from app.core.errors import TooManyRequests
from app.core.moving_windows import networks, refusal
from app.core.redis import CLIENT_OPTIONS
from app.core.settings import get_settings

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


# ---- Who is counted ----


def client_address(request: HTTPConnection) -> str:
    """The client's IP address, as app/http/proxies.py has determined it."""
    host = request.client.host if request.client else ""
    try:
        return str(ip_address(host))
    except ValueError:
        return "unknown"  # a proxy may pass on anything


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


_PREFIX = "muster"
_settings = get_settings()
limiter = Limiter(
    key_func=by_session,
    strategy="moving-window",
    storage_uri=_settings.redis_url or "local://",
    storage_options=CLIENT_OPTIONS if _settings.redis_url else {},
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
                raise refusal(item, limiter.limiter.get_window_stats(item, *arguments).reset_time, "request")

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
    return refusal(item, limiter.limiter.get_window_stats(item, *arguments).reset_time, "request")

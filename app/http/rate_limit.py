"""Rate limits of routes and sockets, by slowapi: whose requests are counted, and how a route gets a limit of its own.

Wrong passwords and mails are counted in app/accounts/limits.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from limits import RateLimitItem, parse_many
from slowapi import Limiter
from starlette.requests import HTTPConnection

from app.core.addresses import network, networks, parse_address
from app.core.moving_windows import refusal
from app.core.settings import get_settings

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Check: TypeAlias = Callable[[HTTPConnection], None]


# ---- Who is counted ----


def client_address(request: HTTPConnection) -> str:
    """The client's IP address, as ClientAddress of app/http/middleware.py has determined it."""
    return parse_address(request.client.host if request.client else "")


def by_network(request: HTTPConnection) -> str:
    return network(client_address(request))


def by_session(request: HTTPConnection) -> str:
    """The session once it is authenticated (app/authentication.py notes it), else the network."""
    return str(getattr(request.state, "session_id", None) or by_network(request))


def by_person(request: HTTPConnection) -> str:
    """The account, however many sessions it has; else the network."""
    return str(getattr(request.state, "user_id", None) or by_network(request))


# ---- Requests, in the windows of slowapi's limiter ----


_settings = get_settings()
_windows = Limiter(key_func=by_session, strategy="moving-window", storage_uri=_settings.redis_url or "local://").limiter


def is_storage_available() -> bool:
    """Whether Redis answers, if there is one."""
    return _windows.storage.check()


@dataclass(frozen=True, slots=True)
class RouteLimit:
    """A decorator that gives a route a limit such as "20/minute", besides LIMIT_DEFAULT or, by session, instead of it.

    Routes whose limits have the same `scope` count together. `kind` is the limit's name, for clients and in metrics.
    slowapi's own decorators would count on the event loop, even in Redis: this one leaves a note on the function, and
    app/http/routing.py counts in the route's thread.
    """

    limit: str
    key: Callable[[HTTPConnection], str] = by_network
    scope: str | None = None
    exempt_when: Callable[[Any], bool] | None = None
    kind: str = "request"

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        endpoint.limits = (*getattr(endpoint, "limits", ()), self)  # type: ignore[attr-defined]  # the note
        return endpoint


_DEFAULT = RouteLimit(_settings.limit_default, by_session)


def checks_of(endpoint: Callable[..., Any]) -> tuple[Check, Check, Check]:
    """The functions `count`, `count_refused` and `check_network`, which raise TooManyRequests. With Redis they block.

    `count` counts a request to `endpoint`; `count_refused` one that is rejected before `endpoint` runs, such as by a
    401, in a window of its own. `check_network` rejects a network that has used up a window, before the request's body
    is read; it counts nothing, since the caller, and whether the request is valid, are not known yet.
    """
    name = f"{endpoint.__module__}.{endpoint.__name__}"
    own: tuple[RouteLimit, ...] = getattr(endpoint, "limits", ())
    limits = own if any(limit.key is by_session for limit in own) else (_DEFAULT, *own)
    scopes = {limit.scope or name: limit.limit for limit in own if limit.key is by_network and not limit.exempt_when}
    scopes[f"{name}/refused"] = _DEFAULT.limit
    windows = [(item, scope) for scope, limit in scopes.items() for item in parse_many(limit)]

    def check_network(request: HTTPConnection) -> None:
        for item, scope in windows:
            _require(_windows.test, item, key=by_network(request), scope=scope)

    count, count_refused = counter(name, *limits), counter(f"{name}/refused", _DEFAULT)
    return count, count_refused, check_network


def counter(name: str, *limits: RouteLimit) -> Check:
    """A function that counts a request, or a socket, in windows of the limits' scopes or else of `name`, that of the
    endpoint: /api/heroes/1 and /api/heroes/2 count together."""
    windows = [(_sizes(item), limit.scope or name, limit) for limit in limits for item in parse_many(limit.limit)]

    def check(request: HTTPConnection) -> None:
        request.state.is_counted = True
        for sizes, scope, limit in windows:
            if limit.exempt_when is None or not limit.exempt_when(request):
                keys = networks(client_address(request)) if limit.key is by_network else [limit.key(request)]
                for item, key in zip(sizes, keys, strict=False):
                    _require(_windows.hit, item, key=key, scope=scope, kind=limit.kind)

    return check


def _sizes(item: RateLimitItem) -> list[RateLimitItem]:
    """The limits of an address or /64, of a /56 (four times as much) and of a /48 (sixteen times)."""
    return [type(item)(item.amount * times, item.multiples) for times in (1, 4, 16)]


def _require(is_free: Callable[..., bool], item: RateLimitItem, *, key: str, scope: str, kind: str = "request") -> None:
    """Raise TooManyRequests unless there is room in a window."""
    if not is_free(item, "muster", key, scope):
        raise refusal(item, _windows.get_window_stats(item, "muster", key, scope).reset_time, kind)

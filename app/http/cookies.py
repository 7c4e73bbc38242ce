"""The cookie that carries a browser's access token, and the origins whose pages may write with it.

The functions take a connection, so that sockets can use them as well as requests.
"""

import re

from starlette.requests import HTTPConnection

from app.core.errors import ForeignOrigin
from app.core.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1
_OWN = re.compile(rb'(?:^|;)[ \t]*((?:__Host-)?muster[a-z-]*=[^;"\\]*+)(?=;|$)')


def cookie_name(settings: Settings, purpose: str = "") -> str:
    """The cookie's name. In production its prefix `__Host-` keeps sibling domains and pages without TLS from setting it
    (RFC 6265bis section 4.1.3.2)."""
    return f"__Host-muster{purpose}" if settings.environment == "production" else f"muster{purpose}"


def own_cookies(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers without foreign cookies. FastAPI parses all cookies at each request, and unquoting a value takes
    quadratic time in some releases of Python (CVE-2024-7592); the values of our own need no quotes."""
    return [(name, b"; ".join(_OWN.findall(value)) if name == b"cookie" else value) for name, value in headers]


def set_cookie(settings: Settings, token: str, max_age: int, purpose: str = "") -> str:
    """A Set-Cookie header. `max_age` is in seconds; 0 deletes the cookie."""
    secure = "; Secure" if settings.environment == "production" else ""
    return f"{cookie_name(settings, purpose)}={token}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}"


def cookie_token(connection: HTTPConnection, settings: Settings) -> str | None:
    """The access token in the cookie, not verified yet. It counts only without an Authorization header."""
    return connection.cookies.get(cookie_name(settings))


def require_own_origin(connection: HTTPConnection, settings: Settings, *, allow_cors_origins: bool = True) -> None:
    """Raise ForeignOrigin unless a request comes from our own pages or from those of CORS_ORIGINS: any other site may
    have sent it with its visitor's cookie. A request that names no origin is rejected: only browsers send cookies by
    themselves, and all of them name the origin.

    Without `allow_cors_origins`, one of CORS_ORIGINS counts only if the browser says that our pages are there.
    """
    origins = connection.headers.getlist("origin")
    is_same = connection.headers.getlist("sec-fetch-site") == ["same-origin"]
    if is_same and origins in ([], ["null"]):  # a page with the referrer policy no-referrer sends "null"
        return
    ours = {settings.public_url, *(settings.cors_origins if allow_cors_origins or is_same else ())}
    if settings.environment != "production":  # in production any Host may be sent, and proxies use plain HTTP
        # A socket's scheme is ws or wss, its page's http or https.
        ours.add(f"{connection.scope['scheme'].replace('ws', 'http')}://{connection.headers.get('host')}")
    if len(origins) != 1 or origins[0] not in ours:
        raise ForeignOrigin

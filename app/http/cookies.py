"""The browser's transport: an access token in a cookie, and which pages may write with it.

Usable for sockets as well: both questions are asked of a connection, not of a request.
"""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from app.core.settings import Settings


def cookie_name(settings: Settings, purpose: str = "") -> str:
    """`__Host-`: no sibling domain and no plain HTTP page can set it (RFC 6265bis section 4.1.3.2)."""
    return f"__Host-muster{purpose}" if settings.environment == "production" else f"muster{purpose}"


def set_cookie(settings: Settings, token: str, max_age: int, purpose: str = "") -> str:
    """The Set-Cookie header. `max_age` is in seconds; 0 takes the cookie away."""
    secure = "; Secure" if settings.environment == "production" else ""
    return f"{cookie_name(settings, purpose)}={token}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}"


def cookie_token(connection: HTTPConnection, settings: Settings) -> str | None:
    """The access token in the cookie, unverified. Ask only if there is no Authorization header."""
    return connection.cookies.get(cookie_name(settings))


def origin_allowed(connection: HTTPConnection, settings: Settings) -> bool:
    """Whether what writes with the cookie is a page of ours, or of CORS_ORIGINS. Who does not say is refused: only
    a browser has cookies of its own accord, and each says where a request comes from."""
    origins = connection.headers.getlist("origin")
    if not origins:
        return connection.headers.getlist("sec-fetch-site") == ["same-origin"]
    scheme = {"ws": "http", "wss": "https"}.get(connection.scope["scheme"], connection.scope["scheme"])
    public = urlsplit(settings.public_url)
    ours = {f"{scheme}://{connection.headers.get('host')}", f"{public.scheme}://{public.netloc}"}
    return len(origins) == 1 and origins[0] in ours.union(settings.cors_origins)

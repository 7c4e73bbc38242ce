"""ASGI middleware: the client's address; each request's id, headers and log line; the last error handler; and a check
at the start that the database is migrated."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from random import getrandbits
from time import perf_counter
from typing import Any, cast

from anyio import CancelScope
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.core import metrics
from app.core.concurrency import in_thread
from app.core.database import ClientGone
from app.core.errors import AppTooOld, BadRequest, ContentTooLarge, HeadTooLarge, NotFound, UnsupportedMediaType
from app.core.logs import actor, client_host, request_id
from app.core.migrations import reason_not_to_start
from app.core.settings import Settings
from app.core.settings_types import parse_client_version
from app.http.bodies import announced_length, max_body
from app.http.cookies import own_cookies

log = logging.getLogger("muster.request")

ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]

# An IPv4 client of a socket for both families appears as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2). Unless that is
# replaced, all of IPv4 would count as one /64.
_MAPPED = re.compile(rb"::ffff:(?=[0-9]+\.)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# An encoded slash, backslash or NUL: a server that decodes the path earlier or later would see another path.
_AMBIGUOUS = re.compile(rb"%(?:2f|5c|00)", re.IGNORECASE)
# Ids have at most 19 digits, except those of clients, and Python's int() rejects 5,000.
_TOO_LARGE_ID = re.compile(r"(?!/api/clients/|/admin/apps/).*[0-9]{20}", re.DOTALL)
# An app that is too old can still sign out, and monitoring is served whatever version it names.
ANY_VERSION_PATHS = ("/api/auth/revoke", "/api/auth/cookie/logout", "/health", "/metrics")


class ClientAddress:
    """The outermost middleware: all others find the client's address and scheme as TRUSTED_PROXIES report them, and an
    IPv4 address in its own notation, whatever the server's socket."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        self._app: Any = ProxyHeadersMiddleware(cast("Any", app), list(trusted))  # its types are uvicorn's own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if client := scope.get("client"):
            scope["client"] = (_MAPPED.sub(b"", client[0].encode()).decode(), client[1])
            scope["headers"] = [
                (name, _MAPPED.sub(b"", value) if name == b"x-forwarded-for" else value)
                for name, value in scope["headers"]
            ]
        await self._app(scope, receive, send)


class RequestContext:
    """Adds X-Request-ID (the client's own if it is harmless) and `headers` to every response that does not set them
    itself, answers HEAD as GET without the body, and logs each request."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self.app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        # Without one from the client, random bits that are no secret and cost no system call.
        identifier = sent.decode() if _REQUEST_ID.fullmatch(sent) else f"{getrandbits(128):032x}"
        request_id.set(identifier)
        actor.set(None)  # the context may be that of the request before on this connection
        client_host.set(scope["client"][0] if scope.get("client") else "unknown")
        started, status = perf_counter(), 499  # 499: the client left before the response
        if scope["type"] == "websocket":
            scope["headers"] = own_cookies(scope["headers"])
            await self._log_socket(scope, receive, send, started)
            return
        method, head_only = scope["method"], None
        if method == "HEAD":
            scope, head_only = {**scope, "method": "GET"}, CancelScope()  # every route that takes GET takes HEAD

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message["headers"], identifier, self._headers)
                if cookie := scope.get("state", {}).get("set_cookie"):  # set by app/authentication.py
                    message["headers"].append((b"set-cookie", cookie.encode()))
            elif head_only:
                return
            await send(message)
            if head_only:
                await send({"type": "http.response.body"})
                head_only.cancel()  # the body could be an endless stream

        try:
            with head_only or nullcontext():
                await self.app(scope, receive, send_with_headers)
        finally:
            _log_request(method, scope, status, perf_counter() - started)

    async def _log_socket(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        code, accepted = 403, False  # the status that the server returns for a socket that is not accepted

        async def watched_receive() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect" and accepted:
                code = message.get("code", code)
            return message

        async def watched_send(message: Message) -> None:
            nonlocal code, accepted
            if message["type"] == "websocket.accept":
                code, accepted = 1006, True  # RFC 6455 section 7.1.5: closed abnormally
            elif message["type"] == "websocket.close" and accepted:
                code = message.get("code", 1000)
            await send(message)

        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            route, seconds = route_template(scope), round(perf_counter() - started, 1)
            fields = {"method": "WS", "route": route, "code": code, "seconds": seconds, **_identity(scope)}
            log.info("WS %s closed with %d after %.1f s", route, code, seconds, extra={"fields": fields})


class CatchAll:
    """The innermost middleware. It rejects malformed heads and outdated apps, drops foreign cookies, and turns
    exceptions into responses: the server would drop the client's connection."""

    def __init__(self, app: ASGIApp, settings: Settings, handle_error: ErrorHandler) -> None:
        self.app, self._settings, self._handle_error = app, settings, handle_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            _check_head(scope, self._settings)
            check_client_version(scope, self._settings)
            scope["headers"] = own_cookies(scope["headers"])
            await self.app(scope, receive, watched_send)
        except (ClientGone, ClientDisconnect):
            metrics.count("clients_gone")
        except Exception as error:
            if started:
                raise  # the response has begun: only a dropped connection tells the client that it is incomplete
            response = await self._handle_error(Request(scope), error)
            await response(scope, receive, send)


class MigrationCheck:
    """Refuses to start, with one line, on a database that is not migrated, where every request would fail."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and (reason := await in_thread(reason_not_to_start, self._settings)):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": reason})
            return
        await self.app(scope, receive, send)


def route_template(scope: Scope) -> str:
    """The path of the route, such as /api/heroes/{hero_id}. The actual path may contain anything, even a password."""
    route: Any = scope.get("route")
    if route is not None or "app" not in scope:
        return getattr(route, "path", "-")
    if "app_root_path" in scope:  # a mount: FastAPI sets no route for it, nor for its own document
        return f"{scope['root_path'].removeprefix(scope['app_root_path'])}/{{path}}"
    return scope["path"] if scope["path"] == scope["app"].openapi_url else "-"


def _log_request(method: str, scope: Scope, status: int, seconds: float) -> None:
    # A client could make up methods, and each would be a time series of its own.
    method = method if method in {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} else "OTHER"
    route, milliseconds = route_template(scope), round(seconds * 1000, 1)
    metrics.count_request(method, route, status, seconds)
    if route in {"/health/live", "/health/ready", "/metrics", "/static/{path}"} and status < 400:
        return  # requested every few seconds, or many times for each page, they would fill the log
    fields = {"method": method, "route": route, "status": status, "milliseconds": milliseconds, **_identity(scope)}
    log.info("%s %s %d %.1f ms", method, route, status, milliseconds, extra={"fields": fields})


def _identity(scope: Scope) -> dict[str, str]:
    """The ids of the caller, if app/authentication.py has authenticated one."""
    state = scope.get("state", {})
    return {name: str(state[name]) for name in ("user_id", "session_id") if name in state}


def _check_head(scope: Scope, settings: Settings) -> None:
    """Refuse a URL or headers that no route could accept, or that take more than 32 KiB."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > 32 * 1024:
        raise HeadTooLarge
    if _AMBIGUOUS.search(scope["raw_path"]) or _TOO_LARGE_ID.match(scope["path"]):
        raise NotFound
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):
        raise BadRequest("The request must name one host.")  # RFC 9112 section 3.2
    if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in scope["headers"]):
        raise UnsupportedMediaType(headers={"Accept-Encoding": "identity"})  # RFC 9110 section 15.5.16
    if (announced_length(scope) or 0) > max_body(scope, settings):
        raise ContentTooLarge


def check_client_version(scope: Scope, settings: Settings) -> None:
    """Raise AppTooOld for a version below its platform's minimum. Clients that name none are served."""
    sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"client-version"), None)
    if sent is None or scope["path"].startswith(ANY_VERSION_PATHS):
        return
    try:
        platform, version = parse_client_version(sent)
    except ValueError:
        raise BadRequest("Client-Version must be a platform and a version, such as ios/1.4.2.") from None
    minimum = dict(settings.min_client_versions).get(platform, "0")
    if _numbers(version) < _numbers(minimum):
        raise AppTooOld(platform=platform, minimum_version=minimum)


def _numbers(version: str) -> list[int]:
    """The parts of a version, to compare it with another: 1.4 equals 1.4.0, and 1.10 is newer than 1.9."""
    return [int(part) for part in f"{version}.0.0.0".split(".")[:4]]


def _add_headers(headers: list[tuple[bytes, bytes]], identifier: str, defaults: list[tuple[bytes, bytes]]) -> None:
    names = {name for name, _ in headers}
    headers.extend((name, value) for name, value in defaults if name not in names)
    headers += [(b"x-request-id", identifier.encode()), (b"x-content-type-options", b"nosniff")]
    if b"cache-control" not in names:
        # Responses are private: no shared cache stores them, and the browser revalidates its own copy.
        headers += [(b"cache-control", b"private, no-cache"), (b"vary", b"Authorization, Cookie")]

"""The client's address and scheme, as TRUSTED_PROXIES report them, with IPv4 addresses in their own notation."""

import re
from collections.abc import Sequence
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

# A socket for both families shows 192.0.2.1 as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2): one /64 for all of IPv4.
_MAPPED = re.compile(rb"::ffff:(?=[0-9]+\.)", re.IGNORECASE)


class ClientAddress:
    """The outermost middleware. All others find the client's address in one notation, whatever the server's socket."""

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

"""What the pages know of the service: the answers of its API, in this process or at API_URL.

A page asks as the browser would: with its cookie, from its address, under its request's id. So every rule (validation,
limits, ownership, where a write may come from) exists once, in the API.
"""

from typing import Any

import httpx
from fastapi import Request

from app.core.errors import Unavailable
from app.core.logs import request_id
from app.core.settings import get_settings
from app.http.cookies import cookie_name, cookie_token, origin_allowed
from app.http.rate_limit import client_address

_PASSED_ON = {b"user-agent", b"origin", b"sec-fetch-site"}
_TIMEOUT = {"connect": 5.0, "read": 45.0, "write": 10.0, "pool": 10.0}  # seconds; a request may wait for its slot


class Refused(Exception):
    """The API refuses: what it says of that (RFC 9457)."""

    def __init__(self, answer: httpx.Response) -> None:
        self.status = answer.status_code
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        self.problem: dict[str, Any] = answer.json() if is_problem else {}
        self.retry_after = answer.headers.get("retry-after")
        super().__init__(f"{self.status} {self.problem.get('type')}")


class Api:
    """The API for one request of a browser. Cookies that it sets reach the browser with whatever the page answers."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._settings = get_settings()

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """The answer, read to its end; Refused for a 4xx or 5xx."""
        base, transport = self._way()
        call = httpx.Request(
            method,
            base + path,
            params=query or None,
            json=json,
            data=form,
            headers=[*self._headers(), *((name.encode(), text.encode()) for name, text in (headers or {}).items())],
            extensions={"timeout": _TIMEOUT},
        )
        try:
            answer = await transport.handle_async_request(call)
            await answer.aread()
        except httpx.TransportError:
            raise Unavailable("The API does not answer. Try again shortly.", retry_after=5) from None
        if cookie := answer.headers.get("set-cookie"):
            self._request.state.set_cookie = cookie  # app/http/middleware.py sends it
        if answer.is_error:
            raise Refused(answer)
        return answer

    async def get(self, path: str, **query: str) -> Any:
        """The JSON at an address."""
        return (await self.call("GET", path, query=query)).json()

    def _way(self) -> tuple[str, httpx.AsyncBaseTransport]:
        """Over HTTP, or straight into the other application of this process."""
        state = self._request.app.state
        if state.api is None:
            return self._settings.api_url or "", state.transport
        client = (client_address(self._request), self._request.client.port if self._request.client else 0)
        return f"{self._request.url.scheme}://localhost", httpx.ASGITransport(state.api, client=client)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        raw = self._request.scope["headers"]
        passed = [(name, text) for name, text in raw if name in _PASSED_ON]
        if origin_allowed(self._request, self._settings):
            # Ours by the address that the browser knows; the API may stand at another one.
            passed = [(name, text) for name, text in passed if name == b"user-agent"]
            passed.append((b"sec-fetch-site", b"same-origin"))
        if self._request.app.state.api is None:
            passed.append((b"x-forwarded-for", client_address(self._request).encode()))
        else:
            passed += [(name, text) for name, text in raw if name == b"host"]
        if token := cookie_token(self._request, self._settings):
            passed.append((b"cookie", f"{cookie_name(self._settings)}={token}".encode()))
        return [*passed, (b"x-request-id", request_id.get().encode()), (b"accept-encoding", b"identity")]

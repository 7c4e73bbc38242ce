"""The pages' client of the API, which runs in this process or at API_URL.

It calls the API as the browser would, with the browser's cookie, address and request id, so that every rule
(validation, limits, ownership, which site may write) exists once, in the API.
"""

from typing import TYPE_CHECKING, Any

from fastapi import Request

from app.core.errors import Unavailable
from app.core.logs import request_id
from app.core.settings import get_settings
from app.http.cookies import cookie_name, cookie_token, origin_allowed
from app.http.rate_limit import client_address

if TYPE_CHECKING:
    import httpx

# Seconds. A request may wait up to SLOT_TIMEOUT before the API begins with it.
_TIMEOUT = {"connect": 5.0, "read": 45.0, "write": 10.0, "pool": 10.0}


class ApiError(Exception):
    """An error response of the API (RFC 9457). `type` is the problem's name, such as "not-found"."""

    def __init__(self, response: "httpx.Response") -> None:
        self.status = response.status_code
        is_problem = response.headers.get("content-type") == "application/problem+json"
        self.members: dict[str, Any] = response.json() if is_problem else {}
        self.type = str(self.members.get("type", "")).removeprefix("/problems/")
        wait = response.headers.get("retry-after")
        self.headers = {"Retry-After": wait} if wait else {}
        super().__init__(f"{self.status} {self.type}")


class Api:
    """The API, called for one request of a browser. The browser receives the cookies that the API sets."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._settings = get_settings()

    async def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **sent: Any
    ) -> "httpx.Response":
        """The whole response; ApiError for a status of 400 and above. `sent` are arguments of httpx, such as `json`."""
        import httpx  # noqa: PLC0415  # 4 MB that an API which nobody browses need not hold

        base_url, transport = self._transport()
        outgoing = httpx.Request(
            method,
            base_url + path,
            headers=[*self._headers(), *((name.encode(), text.encode()) for name, text in (headers or {}).items())],
            extensions={"timeout": _TIMEOUT},
            **sent,
        )
        try:
            response = await transport.handle_async_request(outgoing)
            await response.aread()
        except httpx.TransportError:
            raise Unavailable(retry_after=5) from None
        if cookie := response.headers.get("set-cookie"):
            self._request.state.set_cookie = cookie  # app/http/middleware.py adds it to the answer
        if response.is_error:
            raise ApiError(response)
        return response

    async def get(self, path: str, **query: str) -> Any:
        """The JSON of a resource."""
        return (await self.call("GET", path, params=query)).json()

    def _transport(self) -> tuple[str, "httpx.AsyncBaseTransport"]:
        """The base URL and the transport: over the network, or straight into the other application of this process."""
        import httpx  # noqa: PLC0415  # the same

        state = self._request.app.state
        if state.api is None:
            return self._settings.api_url or "", state.transport
        client = (client_address(self._request), self._request.client.port if self._request.client else 0)
        return f"{self._request.url.scheme}://localhost", httpx.ASGITransport(state.api, client=client)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(name, text) for name, text in self._request.scope["headers"] if name == b"user-agent"]
        if origin_allowed(self._request, self._settings):
            # Judged here, by the address that the browser knows: the API may have another one.
            headers.append((b"sec-fetch-site", b"same-origin"))
        if self._request.app.state.api is None:
            headers.append((b"x-forwarded-for", client_address(self._request).encode()))
        if token := cookie_token(self._request, self._settings):
            headers.append((b"cookie", f"{cookie_name(self._settings)}={token}".encode()))
        return [*headers, (b"x-request-id", request_id.get().encode()), (b"accept-encoding", b"identity")]

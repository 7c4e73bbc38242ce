"""The pages' client of the API, which runs in this process or at API_URL.

It calls the API as the browser would, with the browser's cookie, address and request id, so that every rule
(validation, limits, ownership, which site may write) exists once, in the API.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import Request

from app.core.errors import Unavailable
from app.core.logs import request_id
from app.core.settings import get_settings
from app.http.cookies import cookie_name, cookie_token, require_own_origin
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


async def call_api(
    request: Request, method: str, path: str, *, headers: Mapping[bytes, bytes] = {}, **sent: Any
) -> "httpx.Response":
    """Send a request to the API for the browser behind `request`, and pass the API's cookies on to it. Raises ApiError
    for a status of 400 and above. `sent` are arguments of httpx.Request, such as `json`."""
    import httpx  # noqa: PLC0415  # 4 MB that an API which nobody browses need not hold

    # Only our own pages may send forms. Another site would try passwords with them, or consent in a person's place.
    if method != "GET":
        require_own_origin(request, get_settings(), allow_cors_origins=False)
    all_headers = [*_headers(request), *headers.items()]
    if is_api_remote(request):
        base_url, transport = get_settings().api_url or "", request.app.state.transport
        all_headers.append((b"x-forwarded-for", client_address(request).encode()))
    else:  # straight into the other application of this process
        base_url = f"{request.url.scheme}://localhost"
        transport = httpx.ASGITransport(request.app.state.api, client=(client_address(request), 0))
    outgoing = httpx.Request(method, base_url + path, headers=all_headers, extensions={"timeout": _TIMEOUT}, **sent)
    try:
        response: httpx.Response = await transport.handle_async_request(outgoing)
        await response.aread()
    except httpx.TransportError:
        raise Unavailable(retry_after=5) from None
    if cookie := response.headers.get("set-cookie"):
        request.state.set_cookie = cookie  # app/http/middleware.py adds it to the response
    if response.is_error:
        raise ApiError(response)
    return response


async def get_json(request: Request, path: str, **query: str) -> Any:
    """The JSON of a resource of the API."""
    return (await call_api(request, "GET", path, params=query)).json()


def is_api_remote(request: Request) -> bool:
    """Whether the API runs at API_URL, and not in this process."""
    return request.app.state.api is None


def _headers(request: Request) -> list[tuple[bytes, bytes]]:
    settings = get_settings()
    headers = [(name, text) for name, text in request.scope["headers"] if name == b"user-agent"]
    if token := cookie_token(request, settings):
        headers.append((b"cookie", f"{cookie_name(settings)}={token}".encode()))
    headers += [(b"x-request-id", request_id.get().encode()), (b"accept-encoding", b"identity")]
    # call_api checks the origin, by the address that the browser knows: the API may have another one.
    return [*headers, (b"sec-fetch-site", b"same-origin")]

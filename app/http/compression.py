"""Compressing responses with gzip: a static file once, every other response while it is sent."""

import gzip
import re
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware, IdentityResponder
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from app.core.concurrency import in_thread

_GZIP = re.compile(r"gzip(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", re.IGNORECASE)


def accepts_gzip(scope: Scope) -> bool:
    """Whether Accept-Encoding lists gzip and does not exclude it by `gzip;q=0` (RFC 9110 section 12.5.3)."""
    return bool(_GZIP.search(Headers(scope=scope).get("accept-encoding", "")))


class Compression(GZipMiddleware):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or accepts_gzip(scope):
            await super().__call__(scope, receive, send)
        else:
            await IdentityResponder(self.app, self.minimum_size)(scope, receive, send)


class CompressedFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if not isinstance(response, FileResponse) or not accepts_gzip(scope):
            return response
        content = await in_thread(_compressed, Path(response.path), response.headers["etag"])
        kept = {name: response.headers[name] for name in ("content-type", "etag", "last-modified")}
        return Response(content, headers={**kept, "content-encoding": "gzip", "vary": "Accept-Encoding"})


@cache
def _compressed(path: Path, etag: str) -> bytes:  # noqa: ARG001  # a changed file has another tag
    """The compressed file. Swagger UI's bundle takes 70 ms, so each version of a file is compressed once."""
    return gzip.compress(path.read_bytes())

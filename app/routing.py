"""The route class of every API route: counts the request, then runs the endpoint, in one thread hop."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from anyio import to_thread
from fastapi import Request
from fastapi.routing import APIRoute

from app.limits import request_check


class Route(APIRoute):
    """FastAPI runs a sync endpoint in one thread and validates its result in a second one, which costs more than the
    validation. Seen from FastAPI the endpoints here are async, so the result is validated where it arrives."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, _served(endpoint), **options)


def _served(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    check = request_check(endpoint)
    is_async = inspect.iscoroutinefunction(endpoint)

    def counted(request: Request, values: dict[str, Any]) -> Any:
        check(request)
        return endpoint(**values)

    @wraps(endpoint)
    async def run(_request: Request, **values: Any) -> Any:
        if is_async:
            await to_thread.run_sync(check, _request)  # limits may wait for Redis: never on the loop
            return await endpoint(**values)
        return await to_thread.run_sync(counted, _request, values)

    signature = inspect.signature(endpoint)
    ours = inspect.Parameter("_request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect reads it
        parameters=[*signature.parameters.values(), ours]
    )
    return run

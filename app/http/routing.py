"""The router and the route class of the API: strict JSON in, the request counted, the endpoint in one thread hop."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Coroutine
from decimal import Decimal
from enum import Enum
from functools import wraps
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute, APIRouter
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.core.concurrency import in_thread
from app.core.errors import MethodNotAllowed
from app.core.settings import get_settings
from app.core.strict_json import parse
from app.http.rate_limit import is_counted, refusal_check, request_check

# Which methods a path takes: each route knows only its own.
_methods: defaultdict[str, set[str]] = defaultdict(set)
_limits_wait = get_settings().redis_url is not None  # for Redis: then never on the loop


class StrictRequest(Request):
    """A request whose JSON is parsed strictly (RFC 7493)."""

    async def json(self) -> Any:
        body = parse(await self.body())
        # FastAPI has Pydantic read attributes where it finds no object: a Decimal would be one that lacks all members.
        return float(body) if isinstance(body, Decimal) else body


class Route(APIRoute):
    """FastAPI runs a sync endpoint in one thread and validates its result in a second one, which costs more than the
    validation. Seen from FastAPI the endpoints here are async, so the result is validated where it arrives."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._count_refused = refusal_check(endpoint)
        super().__init__(path, _served(endpoint), **options)
        _methods[path].update(self.methods or ())

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except Exception:
                if not is_counted(request):
                    await in_thread(self._count_refused, request)
                raise

        return handle_strictly

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.PARTIAL and scope["method"] not in _methods[self.path]:
            match = Match.FULL  # the address is ours: without this, /tasks/assignees would be tried as /tasks/{task_id}
        return match, child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = _methods[self.path]
        if scope["method"] not in taken:
            raise MethodNotAllowed(headers={"Allow": ", ".join(sorted(taken))})
        await super().handle(scope, receive, send)


class Router(APIRouter):
    """The router of a resource, all of whose addresses begin with `prefix`.

    FastAPI tries the routes of every router one by one, for the last of them a third of what a request costs before
    its slot. The prefix spares most of it.
    """

    def __init__(self, prefix: str, *, tags: list[str | Enum] | None = None) -> None:
        super().__init__(prefix=prefix, tags=tags, route_class=Route)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["path"].startswith(self.prefix):
            return super().matches(scope)
        return Match.NONE, {}


def _served(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    check = request_check(endpoint)
    is_async = inspect.iscoroutinefunction(endpoint)
    signature = inspect.signature(endpoint)
    wants_request = "request" in signature.parameters

    def counted(request: Request, values: dict[str, Any]) -> Any:
        check(request)
        return endpoint(**values)

    @wraps(endpoint)
    async def run(request: Request, **values: Any) -> Any:
        if wants_request:
            values["request"] = request
        if is_async:
            if _limits_wait:
                await in_thread(check, request)
            else:
                check(request)
            return await endpoint(**values)
        return await in_thread(counted, request, values)

    if not wants_request:
        ours = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
        parameters = [*signature.parameters.values(), ours]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # FastAPI reads it
    return run

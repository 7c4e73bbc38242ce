"""The router and the route of the API: strict JSON, rate limits, and one worker thread for each request."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Coroutine
from decimal import Decimal
from functools import cache, partial, wraps
from typing import Any, get_args

from fastapi import Request, Response
from fastapi.dependencies import utils
from fastapi.params import Depends
from fastapi.routing import APIRoute, APIRouter
from pydantic.alias_generators import to_camel
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.core.concurrency import in_thread
from app.core.database import Side
from app.core.errors import MethodNotAllowed
from app.core.settings import get_settings
from app.core.strict_json import parse
from app.http.bodies import announced_length
from app.http.rate_limit import Check, checks_of

# FastAPI would inspect the annotation of each query parameter and header at every request: a tenth of a list's CPU.
utils.field_annotation_is_sequence = cache(utils.field_annotation_is_sequence)  # type: ignore[attr-defined]  # no export

# The methods of each path: a route knows only its own.
_methods: defaultdict[str, set[str]] = defaultdict(set)


class RequestDependency(Depends):
    """A dependency that a Route calls itself: a function that takes only the request, and does not block.

    Resolving one by FastAPI would take 8% of a list's CPU.
    """


class StrictRequest(Request):
    """A request whose JSON is parsed strictly (RFC 7493)."""

    async def json(self) -> Any:
        body = parse(await self.body())
        # FastAPI makes Pydantic read attributes of anything but an object: a Decimal would pass as an empty object.
        return float(body) if isinstance(body, Decimal) else body


class Route(APIRoute):
    """A route that runs a sync endpoint in one worker thread and validates its result on the event loop.

    FastAPI would hand over to a thread for the endpoint, its validation, the opening and the commit of its session, and
    each hand-over costs more than most of these. To FastAPI, the endpoints here are async.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        count, self._count_refused, self._check_network = checks_of(endpoint)
        self._head = path.partition("{")[0]
        super().__init__(path, _as_async(endpoint, count), **options)
        methods = self.methods or set()
        _methods[path] |= methods | ({"HEAD"} if "GET" in methods else set())

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            if announced_length(request.scope) is not None:
                await _limit(self._check_network, request)
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except Exception:
                if not hasattr(request.state, "is_counted"):  # set by app/http/rate_limit.py
                    await _limit(self._count_refused, request)
                raise

        return handle_strictly

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if not scope["path"].startswith(self._head):  # most routes; ten times as fast as their regular expressions
            return Match.NONE, {}
        match, child_scope = super().matches(scope)
        if match is Match.PARTIAL and scope["method"] not in _methods[self.path]:
            match = Match.FULL  # so that DELETE /tasks/assignees is a 405 and not tried as /tasks/{task_id}
        return match, child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = _methods[self.path]
        if scope["method"] not in allowed:
            raise MethodNotAllowed(headers={"Allow": ", ".join(sorted(allowed))})
        await super().handle(scope, receive, send)


# The router of a resource, whose paths all begin with its `prefix`. Generated clients name a route as its function is
# named, in camel case.
Router = partial(APIRouter, route_class=Route, generate_unique_id_function=lambda route: to_camel(route.name))


async def _limit(check: Check, request: Request) -> None:
    if get_settings().redis_url is None:
        check(request)
    else:
        await in_thread(check, request)  # it waits for Redis: never on the event loop


def _as_async(endpoint: Callable[..., Any], count: Check) -> Callable[..., Any]:
    """The endpoint as FastAPI calls it: async, counted by its rate limits and, if it is sync, run in one worker thread
    with its session. `provided` has the parameters that the Route passes itself, so FastAPI does not see them."""
    is_async = inspect.iscoroutinefunction(endpoint)
    signature = inspect.signature(endpoint)
    provided = {name: read for name, parameter in signature.parameters.items() if (read := _reader(parameter))}

    def counted(request: Request, values: dict[str, Any]) -> Any:
        count(request)
        return endpoint(**values)

    @wraps(endpoint)
    async def run(request: Request, **values: Any) -> Any:
        for name, read in provided.items():
            values[name] = read(request)
        if is_async:
            await _limit(count, request)
            return await endpoint(**values)
        # SessionDep reads a Side; the endpoint receives a session of it.
        session_name = next((name for name in provided if isinstance(values[name], Side)), None)
        if session_name is None:
            return await in_thread(counted, request, values)
        side: Side = values[session_name]
        return await side(request, lambda session: counted(request, values | {session_name: session}))

    parameters = [parameter for name, parameter in signature.parameters.items() if name not in provided]
    parameters.append(inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request))
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # FastAPI reads it
    return run


def _reader(parameter: inspect.Parameter) -> Callable[..., Any] | None:
    """How a Route gets this argument from the request; None if FastAPI passes it."""
    if parameter.annotation is Request:
        return lambda request: request
    metadata = get_args(parameter.annotation)
    return next((item.dependency for item in metadata if isinstance(item, RequestDependency)), None)

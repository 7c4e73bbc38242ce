"""Calls the dependencies of a route and reads its parameters, as FastAPI does, from a plan made once for each route.

FastAPI finds out at every request which kinds of parameters and functions a route has: a sixth of the CPU of a list.
Plans are for the routes of app/http/routing.py whose dependencies are async functions without `yield`, as ours are.
FastAPI solves all others, and validates everything either way, so the errors are the same.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from fastapi import Request, Response, routing
from fastapi._compat import ModelField, Undefined, field_annotation_is_sequence, get_cached_model_fields
from fastapi.dependencies.models import Dependant, _is_coroutine_callable
from fastapi.dependencies.utils import (
    SolvedDependency,
    _get_multidict_extras,
    _get_param_aliases,
    _get_param_model,
    _validate_value_with_model_field,
    request_body_to_args,
    request_params_to_args,
)
from fastapi.security import SecurityScopes

Reader: TypeAlias = Callable[[Mapping[str, Any]], tuple[dict[str, Any], list[Any]]]

_SOURCES = {"path": "path_params", "query": "query_params", "header": "headers", "cookie": "cookies"}  # of a Request


@dataclass(frozen=True, slots=True)
class _Plan:
    dependant: Dependant
    call: Callable[..., Any]
    key: Any  # of its value, which is made once for a request
    dependencies: list["_Plan"]
    readers: list[tuple[str, Reader]]  # each reads parameters from this attribute of the request
    scopes: SecurityScopes


_plans: dict[int, _Plan] = {}  # by the id of a route's Dependant, which lives as long as the process
_solve_any: Callable[..., Awaitable[SolvedDependency]] = vars(routing)["solve_dependencies"]


def prepare(dependant: Dependant) -> None:
    """Make a plan for a route if its dependencies are simple enough."""
    if _is_simple(dependant):
        _plans[id(dependant)] = _plan(dependant)


def _is_simple(dependant: Dependant) -> bool:
    return dependant.background_tasks_param_name is None and all(
        _is_coroutine_callable(each.call) and each.use_cache and not each.body_params and _is_simple(each)
        for each in dependant.dependencies
    )


def _plan(dependant: Dependant) -> _Plan:
    call: Any = dependant.call
    scopes = [*(dependant.parent_oauth_scopes or ()), *(dependant.own_oauth_scopes or ())]
    fields = {attribute: getattr(dependant, f"{kind}_params") for kind, attribute in _SOURCES.items()}
    return _Plan(
        dependant,
        call,
        (call, *scopes),
        [_plan(each) for each in dependant.dependencies],
        [(attribute, _reader(own)) for attribute, own in fields.items() if own],
        SecurityScopes(scopes),
    )


# ---- For each request ----


async def _solve_dependencies(*, dependant: Dependant, **options: Any) -> SolvedDependency:
    plan = _plans.get(id(dependant))
    if plan is None:
        return await _solve_any(dependant=dependant, **options)
    response = Response()
    del response.headers["content-length"]
    response.status_code = None  # type: ignore[assignment]  # as FastAPI does: the route has set none
    solved = SolvedDependency({}, [], None, response, {})
    solved.values = await _solve(plan, options["request"], solved)
    if dependant.body_params:
        values, errors = await request_body_to_args(
            body_fields=dependant.body_params,
            received_body=options["body"],
            embed_body_fields=options["embed_body_fields"],
        )
        solved.values |= values
        solved.errors += errors
    return solved


async def _solve(plan: _Plan, request: Request, solved: SolvedDependency) -> dict[str, Any]:
    """The arguments of a function. Errors are collected in `solved`."""
    values: dict[str, Any] = {}
    for each in plan.dependencies:
        if each.key not in solved.dependency_cache:
            before = len(solved.errors)
            arguments = await _solve(each, request, solved)
            if len(solved.errors) > before:
                continue
            solved.dependency_cache[each.key] = await each.call(**arguments)
        if each.dependant.name is not None:
            values[each.dependant.name] = solved.dependency_cache[each.key]
    for attribute, read in plan.readers:
        found, errors = read(getattr(request, attribute))
        values |= found
        solved.errors += errors
    if name := plan.dependant.request_param_name or plan.dependant.http_connection_param_name:
        values[name] = request
    if name := plan.dependant.response_param_name:
        values[name] = solved.response
    if name := plan.dependant.security_scopes_param_name:
        values[name] = plan.scopes
    return values


# ---- Parameters ----


@dataclass(frozen=True, slots=True)
class _Parameter:
    field: ModelField
    name: str  # in the request
    loc: tuple[str, ...]
    is_list: bool
    default: Any  # Undefined: FastAPI decides

    def received(self, sent: Any) -> Any:
        """Its text, or texts, in the request; None if it is absent."""
        return (sent.getlist(self.name) or None) if self.is_list else sent.get(self.name)

    def validate(self, value: Any) -> tuple[Any, list[Any]]:
        if value is not None:
            return self.field.validate(value, loc=self.loc)
        if self.default is not Undefined:
            return self.default, []
        return _validate_value_with_model_field(field=self.field, value=Undefined, values={}, loc=self.loc)


def _reader(fields: Sequence[ModelField]) -> Reader:
    """What utils.request_params_to_args does for these fields."""
    model = _get_param_model(fields[0])
    within = get_cached_model_fields(model) if model else fields
    is_simple = not model or (len(fields) == 1 and fields[0].field_info.annotation is model)
    if not is_simple or any(len(_get_param_aliases(f)) > 1 or _get_param_model(f) for f in within):
        return partial(request_params_to_args, fields)
    parameters = [_parameter(field, fields[0]) for field in within]
    return partial(_read_model, parameters, fields[0]) if model else partial(_read, parameters)


def _parameter(field: ModelField, outer: ModelField) -> _Parameter:
    info = field.field_info
    [(_, name)] = _get_param_aliases(field)
    loc: tuple[str, ...] = (outer.field_info.in_.value, name)  # type: ignore[attr-defined]  # a Param
    is_simple = not info.is_required() and not info.validate_default and isinstance(field.default, int | str | None)
    is_list = loc[0] != "path" and field_annotation_is_sequence(info.annotation)
    return _Parameter(field, name, loc, is_list, field.default if is_simple else Undefined)


def _read(parameters: Sequence[_Parameter], sent: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    values, errors = {}, []
    for each in parameters:
        value, found = each.validate(each.received(sent))
        if found:
            errors += found
        else:
            values[each.field.name] = value
    return values, errors


def _read_model(
    parameters: Sequence[_Parameter], model: ModelField, sent: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    texts = {each.name: text for each in parameters if (text := each.received(sent)) is not None}
    if len(texts) < len(sent):  # the model decides whether others are allowed
        texts |= _get_multidict_extras(sent, {each.name for each in parameters})
    value, errors = model.validate(texts, loc=("query",))
    return ({} if errors else {model.name: value}), errors


vars(routing)["solve_dependencies"] = _solve_dependencies

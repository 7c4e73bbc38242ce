"""The plans by which routes are solved, beside what FastAPI does without them."""

from collections.abc import Iterator

import pytest
from fastapi.dependencies.utils import request_params_to_args
from starlette.datastructures import Headers, QueryParams

from app.http.routing import Route
from app.http.solving import _Plan, _plans
from app.main import api

pytestmark = pytest.mark.one_database

SENT = [
    "",
    "limit=20",
    "limit=0&after=&type=%20BUY%20&figi=&from=2024-01-01&to=never",
    "limit=5&limit=x&unknown=1&unknown=2&full=yes&since=3",
    "seconds=x&wait=1&room=%00&after=1&before=2&open=maybe&assignee=7&author=x",
    "from=2024-01-02&to=2024-01-01",
]
HEADERS = {"idempotency-key": "a b", "if-match": '"a"', "if-none-match": '"b"', "x-other": "1"}


def _all(plan: _Plan) -> Iterator[_Plan]:
    yield plan
    for each in plan.dependencies:
        yield from _all(each)


PLANS = [each for plan in _plans.values() for each in _all(plan)]


def test_the_routes_of_the_api_have_plans() -> None:
    routes = [route for route in api.routes if isinstance(route, Route) and route.path.startswith("/api/")]
    assert [route.path for route in routes if id(route.dependant) not in _plans] == []


@pytest.mark.parametrize("query", SENT)
def test_parameters_are_read_as_fastapi_reads_them(query: str) -> None:
    sent = {"query_params": QueryParams(query), "headers": Headers(HEADERS if query else {})}
    sent |= {"path_params": {"operation_id": "7", "user_id": query}, "cookies": {}}
    for plan in PLANS:
        for attribute, read in plan.readers:
            fields = getattr(plan.dependant, attribute if attribute.endswith("_params") else "header_params")
            assert str(read(sent[attribute])) == str(request_params_to_args(fields, sent[attribute]))

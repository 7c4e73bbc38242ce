"""Pages of the ledger: a list with filters and a chart by month, and forms to add, change and delete an operation."""

from asyncio import gather
from collections import Counter
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from app.core.templating import bars
from app.pages.api_client import Api
from app.pages.forms import Form, read_form, show_on_error
from app.pages.rendering import page, read_list, redirect

router = APIRouter(include_in_schema=False)

OPERATIONS = "/api/operations"
FILTERS = ("type", "instrument_type", "figi", "from", "to")
ROWS = 25
MONTHS = 12  # the latest ones, in the chart
MILLISECONDS = len("2023-10-26T08:29:31.139")  # as much of a time as a datetime-local field takes


@router.get("/operations")
async def operations(request: Request) -> Response:
    values = {name: request.query_params.get(name, "").strip() for name in FILTERS}
    form = show_on_error(request, Form(values, "operations.html"))
    filters = form.optional(*FILTERS)
    (rows, next_cursor), totals = await gather(
        read_list(request, OPERATIONS, limit=str(ROWS), **filters), Api(request).get(f"{OPERATIONS}/summary")
    )
    chart = bars(_by_month(totals, form))
    return page(request, form.template, form=form, filters=filters, rows=rows, bars=chart, next_cursor=next_cursor)


def _by_month(totals: list[dict[str, Any]], form: Form) -> dict[str, int]:
    """The number of operations in each month, of the type and the instrument that the list is filtered by."""
    wanted = {name: text.lower() for name, text in form.optional("type", "instrument_type").items()}
    counts: Counter[str] = Counter()
    for total in totals:
        if all(total[name] == text for name, text in wanted.items()):
            counts[total["month"]] += total["count"]
    return {month: counts[month] for month in _months_until(max(counts))} if counts else {}


def _months_until(last: str) -> list[str]:
    """The months that end with `last`, including those without any operation."""
    end = int(last[:4]) * 12 + int(last[5:]) - 1
    return [f"{month // 12:04}-{month % 12 + 1:02}" for month in range(max(12, end - MONTHS + 1), end + 1)]


@router.get("/operations/new")
async def new_operation(request: Request) -> Response:
    await Api(request).get("/api/users/me")  # leads to the sign-in before anything is typed
    # The key is sent with the form, so that pressing the button twice adds one operation.
    return page(request, "operation.html", form=Form({"key": str(uuid4())}))


@router.post("/operations/new")
async def add_operation(request: Request) -> Response:
    form = await read_form(request, "operation.html")
    headers = {"Idempotency-Key": form["key"]} if form["key"] else {}
    await Api(request).call("POST", OPERATIONS, json=_body(form), headers=headers)
    return redirect("/operations", done="added")


@router.get("/operations/{operation_id:int}")
async def edit_operation(request: Request, operation_id: int) -> Response:
    operation = await Api(request).call("GET", f"{OPERATIONS}/{operation_id}")
    form = Form({name: str(value) for name, value in operation.json().items() if value is not None})
    form.values["etag"] = operation.headers["etag"]
    form.values |= {"original_date": form["date"], "date": _shown_date(form["date"])}
    return page(request, "operation.html", form=form)


@router.post("/operations/{operation_id:int}")
async def change_operation(request: Request, operation_id: int) -> Response:
    form = await read_form(request, "operation.html")
    await Api(request).call("PUT", f"{OPERATIONS}/{operation_id}", json=_body(form), headers=_if_match(form))
    return redirect("/operations", done="changed")


@router.post("/operations/{operation_id:int}/delete")
async def delete_operation(request: Request, operation_id: int) -> Response:
    form = await read_form(request)
    await Api(request).call("DELETE", f"{OPERATIONS}/{operation_id}", headers=_if_match(form))
    return redirect("/operations", done="deleted")


def _if_match(form: Form) -> dict[str, str]:
    return {"If-Match": form["etag"]} if form["etag"] else {}


def _body(form: Form) -> dict[str, str]:
    """The operation as the API takes it, with its date in UTC. A date that nobody changed keeps its microseconds."""
    date, original = form["date"], form["original_date"]
    if original and date == _shown_date(original):
        date = original
    else:
        date += ":00Z" if len(date) == len("2023-10-26T08:29") else "Z"
    return form.required("type", "figi", "quantity") | form.optional("instrument_type") | {"date": date}


def _shown_date(date: str) -> str:
    return date.removesuffix("Z")[:MILLISECONDS]

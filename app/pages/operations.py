"""The pages of the ledger: a list with filters and a chart by month, and one operation to add, change or delete."""

from asyncio import gather
from collections import Counter
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from app.core.templating import bars
from app.pages.api_client import Api, Refused
from app.pages.rendering import Form, next_page, page, read_form, redirect

router = APIRouter(include_in_schema=False)

FILTERS = ("type", "instrument_type", "figi", "from", "to")
ROWS = 25
MONTHS = 12  # of the chart, the latest


@router.get("/operations")
async def operations(request: Request) -> Response:
    api, form = Api(request), Form({name: request.query_params.get(name, "").strip() for name in FILTERS})
    query = form.only(*FILTERS) | {"limit": str(ROWS)}
    if after := request.query_params.get("after"):
        query["after"] = after
    try:
        answer, totals = await gather(
            api.call("GET", "/api/operations", query=query), api.get("/api/operations/summary")
        )
    except Refused as refused:
        return page(request, "operations.html", form=form.refused(refused), rows=[], bars=[], more=None)
    shown = bars(_by_month(totals, form))
    return page(request, "operations.html", form=form, rows=answer.json(), bars=shown, more=next_page(answer))


def _by_month(totals: list[dict[str, Any]], form: Form) -> dict[str, int]:
    """How many operations a month of the type and instrument that the list shows."""
    wanted = {name: form[name].lower() for name in ("type", "instrument_type") if form[name]}
    months: Counter[str] = Counter()
    for total in totals:
        if all(total[name] == value for name, value in wanted.items()):
            months[total["month"]] += total["count"]
    return {month: months[month] for month in _until(max(months))} if months else {}


def _until(last: str) -> list[str]:
    """The months of a year that ends with this one; some may have had no operation."""
    end = int(last[:4]) * 12 + int(last[5:]) - 1
    return [f"{month // 12:04}-{month % 12 + 1:02}" for month in range(max(12, end - MONTHS + 1), end + 1)]


@router.get("/operations/new")
async def new_operation(request: Request) -> Response:
    await Api(request).get("/api/users/me")  # who is signed out is told before typing
    # Sent with the form: pressed twice, the button records one operation.
    return page(request, "operation.html", form=Form({"key": str(uuid4())}), etag=None)


@router.post("/operations/new")
async def add_operation(request: Request) -> Response:
    form = await read_form(request)
    try:
        headers = {"Idempotency-Key": form["key"]} if form["key"] else {}
        await Api(request).call("POST", "/api/operations", json=_body(form), headers=headers)
    except Refused as refused:
        return page(request, "operation.html", form=form.refused(refused), etag=None)
    return redirect("/operations", done="added")


@router.get("/operations/{operation_id:int}")
async def edit_operation(request: Request, operation_id: int) -> Response:
    answer = await Api(request).call("GET", f"/api/operations/{operation_id}")
    form = Form({name: str(value) for name, value in answer.json().items() if value is not None})
    # A field for moments holds no more than milliseconds: who does not touch it keeps what there is.
    form.values |= {"kept_date": form["date"], "date": form["date"].removesuffix("Z")[:23]}
    return page(request, "operation.html", form=form, etag=answer.headers["etag"])


@router.post("/operations/{operation_id:int}")
async def change_operation(request: Request, operation_id: int) -> Response:
    form = await read_form(request)
    try:
        headers = {"If-Match": form["etag"]} if form["etag"] else {}
        await Api(request).call("PUT", f"/api/operations/{operation_id}", json=_body(form), headers=headers)
    except Refused as refused:
        return page(request, "operation.html", form=form.refused(refused), etag=form["etag"])
    return redirect("/operations", done="changed")


@router.post("/operations/{operation_id:int}/delete")
async def delete_operation(request: Request, operation_id: int) -> Response:
    form = await read_form(request)
    headers = {"If-Match": form["etag"]} if form["etag"] else {}
    await Api(request).call("DELETE", f"/api/operations/{operation_id}", headers=headers)
    return redirect("/operations", done="deleted")


def _body(form: Form) -> dict[str, str | None]:
    """As the API takes it. A field for moments knows no offset; the label says that it is UTC."""
    date, kept = form["date"], form["kept_date"]
    is_kept = bool(kept) and kept.removesuffix("Z")[:23] == date
    seconds = ":00" if len(date) == len("2023-10-26T08:29") else ""
    return {
        "type": form["type"],
        "instrument_type": form["instrument_type"] or None,
        "figi": form["figi"],
        "quantity": form["quantity"],
        "date": kept if is_kept else f"{date}{seconds}Z",
    }

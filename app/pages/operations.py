"""Pages of the ledger: a list with filters and a chart by month, and forms to add, change and delete an operation."""

from asyncio import gather
from datetime import timedelta
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from app.ledger.chart import monthly_chart
from app.models.base import utcnow
from app.pages.api_client import ApiError, call_api, get_json, is_api_remote
from app.pages.forms import Form, PlainForm
from app.pages.rendering import ME, form_of, is_signed_in, page, pass_on, read_list, redirect, show_on_error

router = APIRouter()

OPERATIONS = "/api/operations"
SUMMARY, IMPORT = f"{OPERATIONS}/summary", f"{OPERATIONS}/import"
FILTERS = ("type", "instrument_type", "figi", "from", "to")
SAMPLE = ("share,BBG000B9XRY4", "etf,BBG000BDTBL9", "bond,BBG00DL8NMV2")


@router.get("/operations")
async def operations(request: Request) -> Response:
    form = show_on_error(request, _filter_form(request), partial(page, template="operations.html"))
    filters, by_quantity = form.optional(*FILTERS), request.query_params.get("chart") == "quantity"
    listed, totals = await gather(
        read_list(request, OPERATIONS, limit="25", **filters), get_json(request, SUMMARY, **filters)
    )
    all_totals = await get_json(request, SUMMARY) if filters else totals  # the filters suggest what is in the ledger
    return await page(
        request,
        "operations.html",
        filters=filters,
        query=filters | ({"chart": "quantity"} if by_quantity else {}),
        operations=listed,
        count=sum(total["count"] for total in totals),
        chart=monthly_chart(totals, by_quantity=by_quantity),
        by_quantity=by_quantity,
        types=sorted({total["type"] for total in all_totals}),
        instruments=sorted({total["instrument_type"] for total in all_totals if total["instrument_type"]}),
        sample_key=str(uuid4()),
    )


def _filter_form(request: Request) -> Form:
    return Form({name: request.query_params.get(name, "").strip() for name in FILTERS})


@router.get("/operations/new")
async def new_operation(request: Request) -> Response:
    """The form of a new operation: a copy of the one that `copy` names, or else the latest one's instrument. The date
    is now."""
    if redirected := _redirect_to_keyed(request):
        return redirected
    copied = request.query_params.get("copy", "")
    if copied.isdecimal():
        values = _values(await get_json(request, f"{OPERATIONS}/{copied}"))
    else:
        latest = await get_json(request, OPERATIONS, limit="1")  # leads to the sign-in before anything is typed
        values = {name: text for last in latest for name, text in _values(last).items() if name != "quantity"}
    added = {"date": f"{utcnow():%Y-%m-%dT%H:%M}", "key": request.query_params["key"]}
    return await page(request, "operation.html", form=Form(values | added))


def _redirect_to_keyed(request: Request) -> Response | None:
    """A redirect to this page with an idempotency key for its form in the address, unless it has one. Whoever goes back
    and sends the form again sends the same key: browsers restore what was typed, but load the page again."""
    if "key" in request.query_params or not is_signed_in(request):  # people who are signed out go to the sign-in
        return None
    url = request.url.include_query_params(key=uuid4())
    return redirect(f"{url.path}?{url.query}")


async def _record_once(request: Request, path: str, form: Form, **sent: Any) -> None:
    """Record what the form contains once, however often it is sent. A form changed since then needs another click."""
    key = {b"idempotency-key": form["key"].encode()} if form["key"] else {}
    try:
        await call_api(request, "POST", path, headers=key, **sent)
    except ApiError as error:
        if error.type == "idempotency-key-reused":
            form.values["key"] = str(uuid4())
        raise


def _values(operation: dict[str, Any]) -> dict[str, str]:
    """The values of the form's fields, except for the date."""
    return {name: operation[name] for name in ("type", "instrument_type", "figi", "quantity") if operation[name]}


NewForm = Annotated[Form, form_of(partial(page, template="operation.html"))]


@router.post("/operations/new")
async def add_operation(request: Request, form: NewForm) -> Response:
    await _record_once(request, OPERATIONS, form, json=_body(form))
    return redirect("/operations", done="added")


@router.get("/operations/import")
async def choose_import(request: Request) -> Response:
    if redirected := _redirect_to_keyed(request):
        return redirected
    await get_json(request, ME)  # leads to the sign-in before a file is chosen
    return await page(request, "import.html", form=Form({"key": request.query_params["key"], "lines": ""}))


ImportForm = Annotated[Form, form_of(partial(page, template="import.html"))]


@router.post("/operations/import")
async def import_operations(request: Request, form: ImportForm) -> Response:
    await _record_once(request, IMPORT, form, content=form["lines"].encode())
    return redirect("/operations", done="imported")


@router.post("/operations/sample")
async def load_sample(request: Request, form: PlainForm) -> Response:
    """A year of operations to look around with."""
    now = utcnow()
    weeks = [(now - timedelta(weeks=week), "buy" if week % 4 else "sell", SAMPLE[week % 3]) for week in range(52)]
    lines = [f"{kind},{instrument},{day.day % 9 + 1},{day:%Y-%m-%dT%H:%MZ}" for day, kind, instrument in weeks]
    content = "\n".join(["type,instrument_type,figi,quantity,date", *lines]).encode()
    await _record_once(request, IMPORT, form, content=content)
    return redirect("/operations", done="sample")


@router.get("/operations/export")
async def export_operations(request: Request) -> Response:
    """Redirect to the API's stream or, if the API runs apart, pass it on."""
    query = _filter_form(request).optional(*FILTERS)
    if is_api_remote(request):
        return await pass_on(request, f"{OPERATIONS}/export", **query)
    return redirect(f"{OPERATIONS}/export", **query)


@router.get("/operations/{operation_id:int}")
async def edit_operation(request: Request) -> Response:
    """The form of an operation. After a conflict it shows the current version beside the rejected change: saving again
    replaces that version."""
    response = await call_api(request, "GET", f"{OPERATIONS}/{request.path_params['operation_id']}")
    current, etag = response.json(), response.headers["etag"]
    version = {"original_date": current["date"], "date": _shown_date(current["date"]), "etag": etag}
    return await page(request, "operation.html", form=Form(_values(current) | version), theirs=current, their_etag=etag)


ChangeForm = Annotated[Form, form_of(edit_operation)]


@router.post("/operations/{operation_id:int}")
async def change_operation(request: Request, operation_id: int, form: ChangeForm) -> Response:
    read = {b"if-match": form["etag"].encode()}
    await call_api(request, "PUT", f"{OPERATIONS}/{operation_id}", headers=read, json=_body(form))
    return redirect("/operations", done="changed")


@router.post("/operations/{operation_id:int}/delete")
async def delete_operation(request: Request, operation_id: int, form: PlainForm) -> Response:
    await call_api(request, "DELETE", f"{OPERATIONS}/{operation_id}", headers={b"if-match": form["etag"].encode()})
    return redirect("/operations", done="deleted")


def _body(form: Form) -> dict[str, str]:
    """The operation as the API takes it, with its date in UTC. An unchanged date keeps its microseconds."""
    original = form["original_date"]
    date = original if original and form["date"] == _shown_date(original) else f"{form['date']}Z"
    return form.required("type", "figi", "quantity") | form.optional("instrument_type") | {"date": date}


def _shown_date(date: str) -> str:
    """The part of a time that a datetime-local field accepts."""
    return date.removesuffix("Z")[: len("2023-10-26T08:29:31.139")]

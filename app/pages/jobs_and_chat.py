"""The pages of statements, which are background jobs, and of the chat."""

import re
from asyncio import gather
from datetime import date
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Request, Response

from app.models.base import utcnow
from app.models.chat import LOBBY
from app.models.operation import Period
from app.pages.api_client import call_api, get_json
from app.pages.forms import Form
from app.pages.rendering import ME, form_of, page, pass_on, read_list, redirect

router = APIRouter()

JOBS = "/api/jobs"
MESSAGES, ROOMS = "/api/chat/messages", "/api/chat/rooms"
LINK = re.compile(r"(https?://[^\s<>\"]*[^\s<>\".,:;!?')\]}])")  # as in static/chat.js


# ---- Jobs ----


@router.get("/jobs")
async def statements(request: Request) -> Response:
    jobs = await read_list(request, JOBS, kind="statement")
    for job in jobs.rows:
        job["period"] = Period.model_validate(job).in_words()
    return await page(request, "jobs.html", jobs=jobs)


@router.post("/jobs")
async def start_statement(request: Request, form: Annotated[Form, form_of(statements)]) -> Response:
    by_dates = form["period"] in ("", "dates")
    period = form.optional("from", "to") if by_dates else named_period(form["period"], utcnow().date())
    await call_api(request, "POST", f"{JOBS}/statement", json=period | {"mail": form["mail"] == "on"})
    return redirect("/jobs", done="started")


def named_period(name: str, today: date) -> dict[str, str]:
    """The first day of a period such as last-month, and the first one after it; neither for any other name."""
    month, quarter = today.month - 1, (today.month - 1) // 3 * 3
    months = {  # the first one and the one after the last, counted from January of this year
        "this-month": (month, month + 1),
        "last-month": (month - 1, month),
        "this-quarter": (quarter, quarter + 3),
        "this-year": (0, 12),
        "last-year": (-12, 0),
    }.get(name, ())
    days = [f"{date(today.year + number // 12, number % 12 + 1, 1)}" for number in months]
    return dict(zip(("from", "to"), days, strict=False))


@router.post("/jobs/{job_id:uuid}/cancel")
async def cancel_job(request: Request, job_id: UUID) -> Response:
    await call_api(request, "DELETE", f"{JOBS}/{job_id}")
    return redirect("/jobs", done="cancelled")


@router.get("/jobs/{job_id:uuid}/result")
async def read_result(request: Request, job_id: UUID) -> Response:
    return await pass_on(request, f"{JOBS}/{job_id}/result", format=request.query_params.get("format", "html"))


# ---- Chat ----


@router.get("/chat")
async def chat(request: Request) -> Response:
    room = _room(request)
    messages, rooms, me = await gather(
        get_json(request, MESSAGES, room=room, limit="50"), get_json(request, ROOMS, limit="20"), get_json(request, ME)
    )
    for message in messages:
        message["parts"] = LINK.split(message["text"])
    # The current room is listed even if nobody has written in it.
    latest = {room: None} | {each["name"]: each["last_message_at"] for each in rooms}
    form = Form({"client_message_id": str(uuid4())})
    return await page(request, "chat.html", form=form, room=room, rooms=latest, messages=messages, me=me)


def _room(request: Request) -> str:
    """The room in the address, in which a person may have typed anything."""
    words = re.findall("[a-z0-9]+", request.query_params.get("room", "").lower())
    return "-".join(words)[:50].strip("-") or LOBBY


@router.post("/chat")
async def send_message(request: Request, form: Annotated[Form, form_of(chat)]) -> Response:
    """For browsers without JavaScript: static/chat.js sends messages over its socket."""
    room = _room(request)
    body = {"text": form["text"].replace("\r\n", "\n"), "room": room, **form.optional("client_message_id")}
    await call_api(request, "POST", MESSAGES, json=body)
    return redirect("/chat", room=room)

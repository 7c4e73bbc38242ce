"""The pages of jobs and of the chat."""

from asyncio import gather
from uuid import UUID, uuid4

from fastapi import APIRouter, Request, Response

from app.pages.api_client import Api, Refused
from app.pages.rendering import Form, page, read_form, read_list, redirect

router = APIRouter(include_in_schema=False)

JOBS = "/api/jobs"
MESSAGES = "/api/chat/messages"
HISTORY = 50


# ---- Jobs ----


@router.get("/jobs")
async def jobs(request: Request) -> Response:
    return await _jobs(request)


@router.post("/jobs")
async def start_statement(request: Request) -> Response:
    form = await read_form(request)
    try:
        body = {**form.only("from", "to"), "mail": form["mail"] == "on"}
        await Api(request).call("POST", f"{JOBS}/statement", json=body)
    except Refused as refused:
        return await _jobs(request, form.refused(refused))
    return redirect("/jobs", done="started")


@router.post("/jobs/{job_id:uuid}/cancel")
async def cancel_job(request: Request, job_id: UUID) -> Response:
    await Api(request).call("DELETE", f"{JOBS}/{job_id}")
    return redirect("/jobs", done="cancelled")


@router.get("/jobs/{job_id:uuid}/result")
async def result(request: Request, job_id: UUID) -> Response:
    """As the API gives it, with its own policy: also where the browser could not take its cookie there."""
    form = "csv" if request.query_params.get("format") == "csv" else "html"
    answer = await Api(request).call("GET", f"{JOBS}/{job_id}/result", query={"format": form})
    kept = ("content-type", "content-disposition", "content-security-policy")
    return Response(answer.content, headers={name: answer.headers[name] for name in kept if name in answer.headers})


async def _jobs(request: Request, form: Form | None = None) -> Response:
    rows, more = await read_list(request, JOBS)
    return page(request, "jobs.html", form=form, jobs=rows, more=more)


# ---- Chat ----


@router.get("/chat")
async def chat(request: Request) -> Response:
    return await _chat(request)


@router.post("/chat")
async def say(request: Request) -> Response:
    """For who has no script; the script sends its messages itself."""
    form = await read_form(request)
    try:
        await Api(request).call("POST", MESSAGES, json=form.only("text", "client_message_id"))
    except Refused as refused:
        return await _chat(request, form.refused(refused))
    return redirect("/chat")


async def _chat(request: Request, form: Form | None = None) -> Response:
    api, form = Api(request), form or Form({"client_message_id": str(uuid4())})
    messages, me = await gather(api.get(MESSAGES, limit=str(HISTORY)), api.get("/api/users/me"))
    return page(request, "chat.html", form=form, messages=messages, me=me)

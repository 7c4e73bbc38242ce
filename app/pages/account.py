"""The pages of a person's own account, and of the devices that are signed in to it."""

from asyncio import gather
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response

from app.pages.api_client import call_api, get_json
from app.pages.forms import Form, checking_password
from app.pages.rendering import LATEST, ME, form_of, page, read_list, redirect

router = APIRouter()
local_accounts = APIRouter()


# ---- The account ----


@router.get("/account")
async def account(request: Request) -> Response:
    me, events = await gather(get_json(request, ME), read_list(request, f"{ME}/audit", limit=LATEST))
    own = {"kind": "export", "owner_id": me["id"], "limit": "1"}  # an admin could read everybody's
    exports = await get_json(request, "/api/jobs", **own) if "jobs" in me["scopes"] else []
    forms = {"profile": Form({"name": me["name"] or ""}), "empty": Form()}
    return await page(request, "account.html", me=me, **forms, jobs=exports, events=events)


AccountForm = Annotated[Form, form_of(account)]  # one of several forms: the template tells by the path which


@router.post("/account/name")
async def change_name(request: Request, form: AccountForm) -> Response:
    await call_api(request, "PATCH", ME, json={"name": form["name"] or None})
    return redirect("/account", done="name")


@local_accounts.post("/account/password")
async def change_password(request: Request, form: AccountForm) -> Response:
    async with checking_password(request, form, "new_password"):
        await call_api(request, "PUT", f"{ME}/password", json=form.required("current_password", "new_password"))
    return redirect("/account", done="password")


@local_accounts.post("/account/email")
async def change_email(request: Request, form: AccountForm) -> Response:
    await call_api(request, "PUT", f"{ME}/email", json=form.required("email", "current_password"))
    return redirect("/account", done="email")


@local_accounts.post("/account/verification")
async def request_verification(request: Request, _form: AccountForm) -> Response:
    me = await get_json(request, ME)
    await call_api(request, "POST", "/api/auth/request-verification", json={"email": me["email"]})
    return redirect("/account", done="verification")


@router.post("/account/export")
async def start_export(request: Request, _form: AccountForm) -> Response:
    await call_api(request, "POST", "/api/jobs/export")
    return redirect("/account", anchor="#data", done="export")


@router.post("/account/delete")
async def delete_account(request: Request, form: AccountForm) -> Response:
    await call_api(request, "DELETE", ME, json=form.optional("current_password"))
    return redirect("/sign-in", done="gone")


# ---- Devices ----


@router.get("/devices")
async def devices(request: Request) -> Response:
    return await page(request, "devices.html", sessions=await read_list(request, f"{ME}/sessions"))


@router.post("/devices/sign-out-others")
async def sign_out_others(request: Request) -> Response:
    await call_api(request, "DELETE", f"{ME}/sessions")
    return redirect("/devices", done="devices")


@router.post("/devices/{session_id:uuid}/name")
async def rename_device(request: Request, session_id: UUID, form: Annotated[Form, form_of(devices)]) -> Response:
    await call_api(request, "PATCH", f"{ME}/sessions/{session_id}", json=form.required("device"))
    return redirect("/devices", done="renamed")


@router.post("/devices/{session_id:uuid}/sign-out")
async def sign_out_device(request: Request, session_id: UUID) -> Response:
    await call_api(request, "DELETE", f"{ME}/sessions/{session_id}")
    return redirect("/devices", done="device")

"""The pages of one's own account, and of the devices that are signed in to it."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from app.pages.api_client import Api, Refused
from app.pages.rendering import Form, page, read_form, read_list, redirect

router = APIRouter(include_in_schema=False)
local_accounts = APIRouter(include_in_schema=False)

ME = "/api/users/me"


# ---- The account ----


@router.get("/account")
async def account(request: Request) -> Response:
    return await _account(request)


@router.post("/account/name")
async def change_name(request: Request) -> Response:
    form = await read_form(request)
    return await _change(request, form, "PATCH", ME, {"name": form["name"] or None}, done="name")


@local_accounts.post("/account/password")
async def change_password(request: Request) -> Response:
    form = await read_form(request)
    body = {"current_password": form["current_password"], "new_password": form["new_password"]}
    return await _change(request, form, "PUT", f"{ME}/password", body, done="password")


@local_accounts.post("/account/email")
async def change_email(request: Request) -> Response:
    form = await read_form(request)
    body = {"email": form["email"], "current_password": form["current_password"]}
    return await _change(request, form, "PUT", f"{ME}/email", body, done="email")


@local_accounts.post("/account/verification")
async def request_verification(request: Request) -> Response:
    api = Api(request)
    body = {"email": (await api.get(ME))["email"]}
    return await _change(request, Form(), "POST", "/api/auth/request-verification", body, done="verification")


@router.post("/account/delete")
async def delete_account(request: Request) -> Response:
    form = await read_form(request)
    try:
        await Api(request).call("DELETE", ME, json=form.only("current_password"))
    except Refused as refused:
        return await _account(request, form.refused(refused), "delete")
    return redirect("/sign-in", done="gone")


async def _change(request: Request, form: Form, method: str, path: str, body: Any, *, done: str) -> Response:
    try:
        await Api(request).call(method, path, json=body)
    except Refused as refused:
        return await _account(request, form.refused(refused), done)
    return redirect("/account", done=done)


async def _account(request: Request, form: Form | None = None, which: str = "") -> Response:
    """With several forms on it, of which `form` is the one named `which`."""
    me = await Api(request).get(ME)
    mine = Form({"name": me["name"] or ""})
    return page(request, "account.html", form=form, which=which, me=me, mine=mine, blank=Form())


# ---- Devices ----


@router.get("/devices")
async def devices(request: Request) -> Response:
    sessions, more = await read_list(request, f"{ME}/sessions")
    return page(request, "devices.html", sessions=sessions, more=more)


@router.post("/devices/sign-out-others")
async def sign_out_others(request: Request) -> Response:
    await Api(request).call("DELETE", f"{ME}/sessions")
    return redirect("/devices", done="devices")


@router.post("/devices/{session_id:uuid}/sign-out")
async def sign_out_device(request: Request, session_id: UUID) -> Response:
    await Api(request).call("DELETE", f"{ME}/sessions/{session_id}")
    return redirect("/devices", done="device")

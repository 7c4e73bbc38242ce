"""Pages for people who are not signed in: home, sign-in, registration, and the links in our mails."""

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.pages.api_client import ApiError, call_api
from app.pages.forms import TEXTS, Form, PlainForm, check_new_password, checking_password
from app.pages.rendering import form_of, is_signed_in, page, redirect
from app.sign_in import local_path

router = APIRouter()
local_accounts = APIRouter()  # main.py leaves these out with LOCAL_ACCOUNTS=off


@router.get("/")
async def home(request: Request) -> Response:
    return redirect("/operations") if is_signed_in(request) else await page(request, "home.html")


@local_accounts.get("/register")
async def registration(request: Request) -> Response:
    return redirect("/operations") if is_signed_in(request) else await show_form(request)


@local_accounts.get("/forgot-password")
@local_accounts.get("/reset-password")
@local_accounts.get("/verify-email")
async def show_form(request: Request) -> Response:
    """A form whose template has the name of its path."""
    return await page(request, f"{request.url.path.removeprefix('/')}.html")


FormOfPath = Annotated[Form, form_of(show_form)]


# ---- Signing in and out, registering ----


@router.get("/sign-in")
async def sign_in_form(request: Request) -> Response:
    query = request.query_params
    wanted = query.get("next", "")
    if is_signed_in(request) and not query.keys() & {"prompt", "problem", "done"}:
        return redirect(local_path(wanted))  # if the session has ended, that page leads back here and says so
    hint = dict(parse_qsl(urlsplit(wanted).query)).get("login_hint", "") if local_path(wanted, "") else ""
    reasons = TEXTS["sign-in"]
    message = reasons.get(query["problem"], reasons["other"]) if "problem" in query else ""
    values = {"next": wanted, "prompt": query.get("prompt", ""), "username": hint}
    return await page(request, "sign-in.html", form=Form(values, message=message))


@local_accounts.post("/sign-in")
async def sign_in(request: Request, form: FormOfPath) -> Response:
    await _log_in(request, form["username"], form["password"])
    return redirect(local_path(form["next"]))


async def _log_in(request: Request, email: str, password: str) -> None:
    await call_api(request, "POST", "/api/auth/cookie/login", data={"username": email, "password": password})


@local_accounts.post("/check-password")
async def check_password(request: Request, form: PlainForm) -> Response:
    """For static/page.js, while a new password is typed: a sentence if it would be rejected, else nothing."""
    await check_new_password(request, form, "password")
    return PlainTextResponse(form.errors.get("password", ""), headers={"Cache-Control": "no-store"})


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    await call_api(request, "POST", "/api/auth/cookie/logout")
    return redirect("/sign-in", done="signed-out")


@local_accounts.post("/register")
async def register(request: Request, form: FormOfPath) -> Response:
    body = form.required("email", "password") | form.optional("name")
    async with checking_password(request, form, "password"):
        await call_api(request, "POST", "/api/auth/register", json=body)
    await _log_in(request, form["email"], form["password"])
    return redirect("/operations")


# ---- Mailed links: the token is in the fragment of the address, which reaches a server only by a form ----


@local_accounts.post("/forgot-password")
async def forgot_password(request: Request, form: FormOfPath) -> Response:
    await call_api(request, "POST", "/api/auth/forgot-password", json=form.required("email"))
    return await page(request, "forgot-password.html", sent=True)


@local_accounts.post("/reset-password")
async def reset_password(request: Request, form: FormOfPath) -> Response:
    await call_api(request, "POST", "/api/auth/reset-password", json=form.required("token", "new_password"))
    return redirect("/sign-in", done="reset")


@local_accounts.post("/verify-email")
async def verify_email(request: Request, form: FormOfPath) -> Response:
    try:
        await call_api(request, "POST", "/api/auth/verify-email", json=form.required("token"))
    except ApiError as error:
        if error.type != "already-confirmed":
            raise
        return _redirect_with_notice(request, done="already-confirmed")
    return _redirect_with_notice(request, done="verified")


@local_accounts.post("/renew-link")
async def renew_link(request: Request, form: PlainForm) -> Response:
    await call_api(request, "POST", "/api/auth/renew-link", json=form.required("token"))
    return _redirect_with_notice(request, done="verification")


def _redirect_with_notice(request: Request, *, done: str) -> Response:
    return redirect("/account" if is_signed_in(request) else "/sign-in", done=done)

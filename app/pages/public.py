"""The pages for who is not signed in: the way in, a new account, a forgotten password, mailed links."""

from fastapi import APIRouter, Request, Response

from app.oidc.login import local_path
from app.pages.api_client import Api, Refused
from app.pages.rendering import PROBLEM, PROBLEMS, Form, is_signed_in, page, read_form, redirect

router = APIRouter(include_in_schema=False)
local_accounts = APIRouter(include_in_schema=False)  # what LOCAL_ACCOUNTS=off takes away (app/main.py)


@router.get("/")
async def home(request: Request) -> Response:
    return redirect("/operations") if is_signed_in(request) else page(request, "home.html")


# ---- In and out ----


@router.get("/sign-in")
async def sign_in_form(request: Request) -> Response:
    asked = request.query_params
    message = PROBLEMS.get(asked["problem"], PROBLEM) if "problem" in asked else ""
    return page(request, "sign_in.html", form=Form({"next": asked.get("next", "")}, message=message))


@local_accounts.post("/sign-in")
async def sign_in(request: Request) -> Response:
    form = await read_form(request)
    try:
        await _log_in(request, form["username"], form["password"])
    except Refused as refused:
        return page(request, "sign_in.html", form=form.refused(refused))
    return redirect(local_path(form["next"]))


async def _log_in(request: Request, email: str, password: str) -> None:
    await Api(request).call("POST", "/api/auth/cookie/login", form={"username": email, "password": password})


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    await Api(request).call("POST", "/api/auth/cookie/logout")
    return redirect("/sign-in", done="signed-out")


@local_accounts.get("/register")
async def register_form(request: Request) -> Response:
    return page(request, "register.html")


@local_accounts.post("/register")
async def register(request: Request) -> Response:
    form = await read_form(request)
    try:
        body = {"email": form["email"], "password": form["password"], **form.only("name")}
        await Api(request).call("POST", "/api/auth/register", json=body)
        await _log_in(request, form["email"], form["password"])
    except Refused as refused:
        return page(request, "register.html", form=form.refused(refused))
    return redirect("/operations")


# ---- Mailed links: their token stands in the fragment, which reaches no server until a person sends it ----


@local_accounts.get("/forgot-password")
async def forgot_password_form(request: Request) -> Response:
    return page(request, "forgot_password.html", sent=False)


@local_accounts.post("/forgot-password")
async def forgot_password(request: Request) -> Response:
    form = await read_form(request)
    try:
        await Api(request).call("POST", "/api/auth/forgot-password", json={"email": form["email"]})
    except Refused as refused:
        return page(request, "forgot_password.html", form=form.refused(refused), sent=False)
    return page(request, "forgot_password.html", sent=True)


@local_accounts.get("/reset-password")
async def reset_password_form(request: Request) -> Response:
    return page(request, "reset_password.html")


@local_accounts.post("/reset-password")
async def reset_password(request: Request) -> Response:
    form = await read_form(request)
    try:
        body = {"token": form["token"], "new_password": form["new_password"]}
        await Api(request).call("POST", "/api/auth/reset-password", json=body)
    except Refused as refused:
        return page(request, "reset_password.html", form=form.refused(refused))
    return redirect("/sign-in", done="reset")


@local_accounts.get("/verify-email")
async def verify_email_form(request: Request) -> Response:
    return page(request, "verify_email.html")


@local_accounts.post("/verify-email")
async def verify_email(request: Request) -> Response:
    form = await read_form(request)
    try:
        await Api(request).call("POST", "/api/auth/verify-email", json={"token": form["token"]})
    except Refused as refused:
        return page(request, "verify_email.html", form=form.refused(refused))
    return redirect("/account" if is_signed_in(request) else "/sign-in", done="verified")

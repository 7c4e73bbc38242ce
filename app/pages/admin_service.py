"""The pages of administration about the service: roles, jobs, the apps that sign people in, and what runs."""

from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from app.core.scopes import SCOPES
from app.oidc.login import local_path
from app.pages.admin import require_administrator
from app.pages.api_client import Api
from app.pages.forms import Form, PlainForm
from app.pages.rendering import View, page, read_list, redirect

router = APIRouter(prefix="/admin", include_in_schema=False, dependencies=[Depends(require_administrator)])

ROLES, JOBS, CLIENTS = "/api/roles", "/api/jobs", "/api/clients"


# ---- Roles ----


async def _roles(request: Request) -> dict[str, Any]:
    return {"roles": await Api(request).get(ROLES), "scopes": SCOPES}


ROLES_PAGE = View("admin-roles.html", _roles)

router.get("/roles")(ROLES_PAGE.show)


@router.post("/roles/{name}")
async def change_role(request: Request, name: str, form: Annotated[Form, Depends(ROLES_PAGE.form)]) -> Response:
    scopes = [scope for scope in SCOPES if form[scope]]
    await Api(request).call("PATCH", f"{ROLES}/{quote(name, safe='')}", json={"scopes": scopes})
    return redirect("/admin/roles", done="role")


# ---- Jobs ----


@router.get("/jobs")
async def jobs(request: Request) -> Response:
    state = request.query_params.get("state", "failed")
    rows, neighbors = await read_list(request, JOBS, state=state)
    return await page(request, "admin-jobs.html", jobs=rows, neighbors=neighbors, state=state)


@router.post("/jobs/{job_id:uuid}/retry")
async def retry_job(request: Request, job_id: UUID, form: PlainForm) -> Response:
    await Api(request).call("POST", f"{JOBS}/{job_id}/retry")
    return redirect(local_path(form["next"], "/admin/jobs"), done="retried")


# ---- Apps: the clients of the authorization code flow ----


async def _apps(request: Request) -> dict[str, Any]:
    clients, neighbors = await read_list(request, CLIENTS, limit="200")  # a mistake is shown beside its app
    for client in clients:
        client["form"] = Form({"name": client["name"], "redirect_uris": "\n".join(client["redirect_uris"])})
    return {"clients": clients, "neighbors": neighbors, "empty": Form()}


APPS = View("admin-apps.html", _apps)
AppForm = Annotated[Form, Depends(APPS.form)]

router.get("/apps")(APPS.show)


@router.post("/apps")
async def add_app(request: Request, form: AppForm) -> Response:
    await Api(request).call("POST", CLIENTS, json=form.required("id", "name") | _redirect_uris(form))
    return redirect("/admin/apps", done="app")


@router.post("/apps/{client_id}")
async def change_app(request: Request, client_id: str, form: AppForm) -> Response:
    await Api(request).call("PATCH", _client(client_id), json=form.required("name") | _redirect_uris(form))
    return redirect("/admin/apps", done="app")


@router.post("/apps/{client_id}/remove")
async def remove_app(request: Request, client_id: str) -> Response:
    await Api(request).call("DELETE", _client(client_id))
    return redirect("/admin/apps", done="app-removed")


def _client(client_id: str) -> str:
    return f"{CLIENTS}/{quote(client_id, safe='')}"


def _redirect_uris(form: Form) -> dict[str, list[str]]:
    return {"redirect_uris": form["redirect_uris"].split()}


# ---- Health ----


@router.get("/system")
async def system(request: Request) -> Response:
    return await page(request, "admin-system.html", system=await Api(request).get("/api/system"))

"""The pages of administration: people, the audit log, roles, jobs, the apps that sign people in, and health."""

from asyncio import gather
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from app.core.errors import InsufficientScope
from app.core.scopes import SCOPES
from app.pages.api_client import call_api, get_json
from app.pages.forms import CORRECT_FIELDS, Form, PlainForm
from app.pages.rendering import LATEST, ME, form_of, page, read_list, redirect
from app.sign_in import local_path

USERS, AUDIT, ROLES, JOBS, CLIENTS = "/api/users", "/api/audit", "/api/roles", "/api/jobs", "/api/clients"
FILTERS = ("search", "role", "is_active")
OTHER_ADDRESS = "This is not the address of this account."


async def require_administrator(request: Request) -> None:
    """Refuse people who may not see other accounts. The API decides what everybody else may do."""
    request.state.me = await get_json(request, ME)
    if "users:read" not in request.state.me["scopes"]:
        raise InsufficientScope("users:read")


router = APIRouter(prefix="/admin", dependencies=[Depends(require_administrator)])


# ---- People: finding them, and one person's account, devices, history and jobs ----


@router.get("")
async def people(request: Request) -> Response:
    filters = {name: text for name in FILTERS if (text := request.query_params.get(name, "").strip())}
    people, roles = await gather(read_list(request, USERS, **filters), get_json(request, ROLES))
    return await page(request, "admin-people.html", people=people, filters=filters, roles=_choice_of(roles))


def _choice_of(roles: list[dict[str, Any]]) -> dict[str, str]:
    return {role["name"]: role["name"] for role in roles}


@router.get("/people/{user_id:uuid}")
async def person(request: Request) -> Response:
    user_id = str(request.path_params["user_id"])
    user, sessions, roles, events = await gather(
        get_json(request, f"{USERS}/{user_id}"),
        get_json(request, f"{USERS}/{user_id}/sessions"),
        get_json(request, ROLES),
        read_list(request, AUDIT, user_id=user_id, limit=LATEST),
    )
    jobs = await get_json(request, JOBS, owner_id=user_id, limit=LATEST) if "jobs" in request.state.me["scopes"] else []
    lists = {"sessions": sessions, "jobs": jobs, "events": events}
    return await page(request, "admin-person.html", user=user, roles=_choice_of(roles), **lists)


PersonForm = Annotated[Form, form_of(person)]


@router.post("/people/{user_id:uuid}")
async def change_person(request: Request, user_id: UUID, form: PersonForm) -> Response:
    """Change the role, or whether the account is active."""
    activation = {"is_active": form["is_active"] == "true"} if form["is_active"] else {}
    await call_api(request, "PATCH", f"{USERS}/{user_id}", json=form.optional("role") | activation)
    return redirect(f"/admin/people/{user_id}", done="person")


@router.post("/people/{user_id:uuid}/sign-out")
async def sign_out_everywhere(request: Request, user_id: UUID) -> Response:
    await call_api(request, "DELETE", f"{USERS}/{user_id}/sessions")
    return redirect(f"/admin/people/{user_id}", done="everywhere")


@router.post("/people/{user_id:uuid}/devices/{session_id:uuid}/sign-out")
async def sign_out_device(request: Request, user_id: UUID, session_id: UUID) -> Response:
    await call_api(request, "DELETE", f"{USERS}/{user_id}/sessions/{session_id}")
    return redirect(f"/admin/people/{user_id}", done="device")


@router.post("/people/{user_id:uuid}/delete")
async def delete_person(request: Request, user_id: UUID, form: PersonForm) -> Response:
    """Delete an account whose address was typed to confirm that."""
    user = await get_json(request, f"{USERS}/{user_id}")
    if form["email"].strip().lower() != user["email"]:
        form.errors, form.message, form.status = {"email": OTHER_ADDRESS}, CORRECT_FIELDS, 422
        return await person(request)
    await call_api(request, "DELETE", f"{USERS}/{user_id}")
    return redirect("/admin", done="person-deleted")


# ---- The audit log ----


@router.get("/history")
async def history(request: Request) -> Response:
    """The audit log of accounts, roles and apps."""
    return await page(request, "admin-history.html", events=await read_list(request, AUDIT))


# ---- Roles ----


@router.get("/roles")
async def roles(request: Request) -> Response:
    return await page(request, "admin-roles.html", roles=await get_json(request, ROLES), scopes=SCOPES)


@router.post("/roles/{name}")
async def change_role(request: Request, name: str, form: Annotated[Form, form_of(roles)]) -> Response:
    scopes = [scope for scope in SCOPES if form[scope]]
    await call_api(request, "PATCH", f"{ROLES}/{quote(name, safe='')}", json={"scopes": scopes})
    return redirect("/admin/roles", done="role")


# ---- Jobs ----


@router.get("/jobs")
async def jobs(request: Request) -> Response:
    state = request.query_params.get("state", "failed")
    return await page(request, "admin-jobs.html", jobs=await read_list(request, JOBS, state=state), state=state)


@router.post("/jobs/{job_id:uuid}/retry")
async def retry_job(request: Request, job_id: UUID, form: PlainForm) -> Response:
    await call_api(request, "POST", f"{JOBS}/{job_id}/retry")
    return redirect(local_path(form["next"], "/admin/jobs"), done="retried")


# ---- Apps: the clients of the authorization code flow ----


@router.get("/apps")
async def apps(request: Request) -> Response:
    clients = await read_list(request, CLIENTS, limit="200")  # on one page: a rejected form is shown beside its app
    for client in clients.rows:
        client["form"] = Form({"name": client["name"], "redirect_uris": "\n".join(client["redirect_uris"])})
    return await page(request, "admin-apps.html", clients=clients, empty=Form())


AppForm = Annotated[Form, form_of(apps)]


@router.post("/apps")
async def add_app(request: Request, form: AppForm) -> Response:
    await call_api(request, "POST", CLIENTS, json=form.required("id", "name") | _redirect_uris(form))
    return redirect("/admin/apps", done="app")


@router.post("/apps/{client_id}")
async def change_app(request: Request, client_id: str, form: AppForm) -> Response:
    await call_api(request, "PATCH", _client(client_id), json=form.required("name") | _redirect_uris(form))
    return redirect("/admin/apps", done="app")


@router.post("/apps/{client_id}/remove")
async def remove_app(request: Request, client_id: str) -> Response:
    await call_api(request, "DELETE", _client(client_id))
    return redirect("/admin/apps", done="app-removed")


def _client(client_id: str) -> str:
    return f"{CLIENTS}/{quote(client_id, safe='')}"


def _redirect_uris(form: Form) -> dict[str, list[str]]:
    return {"redirect_uris": form["redirect_uris"].split()}


# ---- Health ----


@router.get("/system")
async def system(request: Request) -> Response:
    return await page(request, "admin-system.html", system=await get_json(request, "/api/system"))

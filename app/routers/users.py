"""All accounts, and the roles. Reading them needs the scope users:read, changing them users:write."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query
from sqlmodel import col, select

from app.accounts import users
from app.core.errors import Invalid, LastAdmin, NotFound, SessionNotFound, UserNotFound, found
from app.core.scopes import ADMIN, in_order
from app.dependencies import PageDep, SessionDep, SessionId, page_of_sessions, requires
from app.http.openapi import problems
from app.http.routing import Router
from app.models.audit import record
from app.models.refresh_token import SessionPublic
from app.models.user import Role, RoleName, RolePublic, RoleUpdate, User, UserAdminUpdate, UserFilter, UserPublic

router = Router(prefix="/api", tags=["users"])


class RoleNotFound(NotFound, title="No such role"):
    """There is no role with this name."""


READ, WRITE = [requires("users:read")], [requires("users:write")]
NO_USER, NO_SESSION = problems(UserNotFound), problems(SessionNotFound)
NO_USER_OR_LAST_ADMIN = problems(UserNotFound, LastAdmin)

UserId = Annotated[UUID, Path(description="The id of the account.")]
NameInPath = Annotated[RoleName, Path(description="The role's name.")]


@router.get("/users", dependencies=READ)
def list_users(filters: Annotated[UserFilter, Query()], session: SessionDep, page: PageDep) -> list[UserPublic]:
    """Accounts, oldest first: all of them, or those that the filters select."""
    people = session.exec(page.of(users.USERS.where(*filters.conditions()), col(User.id)))
    return [UserPublic.of(user) for user in page.cut(people)]


@router.get("/users/{user_id}", dependencies=READ, responses=NO_USER)
def read_user(user_id: UserId, session: SessionDep) -> UserPublic:
    """One account."""
    return UserPublic.of(users.get_user(session, user_id))


@router.patch("/users/{user_id}", dependencies=WRITE, responses=NO_USER_OR_LAST_ADMIN)
def update_user(user_id: UserId, body: UserAdminUpdate, session: SessionDep) -> UserPublic:
    """Change a name or a role, or disable an account, which revokes its sessions. Takes effect at the next request."""
    changes = body.model_dump()
    disabled = changes.get("is_active") is False
    if disabled or changes.get("role", ADMIN) != ADMIN:
        users.keep_an_admin(session, without=user_id)  # locks the admins first, so two of them cannot deadlock
    user = found(users.lock_user(session, user_id), UserNotFound)
    if changes.get("name", user.name) != user.name:
        record(session, "account-renamed", user_id=user_id)
    if changes.get("is_active", user.is_active) != user.is_active:
        record(session, "account-disabled" if disabled else "account-enabled", user_id=user_id)
    if "role" in changes:
        unknown = Invalid.at("body", "role", message="There is no role with this name.")
        users.change_role(session, user, found(users.find_role(session, changes.pop("role")), unknown))
    if disabled:
        users.end_all_sessions(session, user, reason="disabled")
    user.sqlmodel_update(changes)
    session.add(user)
    return UserPublic.of(user)


@router.delete("/users/{user_id}", status_code=204, dependencies=WRITE, responses=NO_USER_OR_LAST_ADMIN)
def delete_user(user_id: UserId, session: SessionDep) -> None:
    """Delete an account and everything that belongs to it. This cannot be undone."""
    users.delete_account(session, users.get_user(session, user_id))


@router.get("/users/{user_id}/sessions", dependencies=READ, responses=NO_USER)
def list_sessions(user_id: UserId, session: SessionDep, page: PageDep) -> list[SessionPublic]:
    """The signed-in devices of an account, latest sign-in first."""
    users.get_user(session, user_id)
    return page_of_sessions(session, page, user_id)


@router.delete("/users/{user_id}/sessions", status_code=204, dependencies=WRITE, responses=NO_USER)
def revoke_sessions(user_id: UserId, session: SessionDep) -> None:
    """Sign an account out everywhere, at once. Mailed links and a pending change of address end too."""
    user = found(users.lock_user(session, user_id), UserNotFound)
    users.end_all_sessions(session, user, reason="revoked-by-admin")
    record(session, "sessions-revoked", user_id=user_id)


@router.delete("/users/{user_id}/sessions/{session_id}", status_code=204, dependencies=WRITE, responses=NO_SESSION)
def revoke_session(user_id: UserId, session_id: SessionId, session: SessionDep) -> None:
    """Sign out one device of an account, at once."""
    users.end_session(session, user_id=user_id, session_id=session_id, reason="revoked-by-admin")


@router.get("/roles", dependencies=READ)
def list_roles(session: SessionDep) -> list[RolePublic]:
    """The roles and their scopes, by name."""
    return [RolePublic.model_validate(role) for role in session.exec(select(Role).order_by(Role.name))]


@router.patch("/roles/{name}", dependencies=WRITE, responses=problems(RoleNotFound, LastAdmin))
def update_role(name: NameInPath, body: RoleUpdate, session: SessionDep) -> RolePublic:
    """Replace the scopes of a role. Takes effect at the next request of everybody who has it."""
    scopes = in_order(set(body.scopes))
    if name == ADMIN and not {"users:read", "users:write"} <= set(scopes):
        raise LastAdmin("The role admin needs users:read and users:write: without them nobody could restore them.")
    role = found(users.find_role(session, name), RoleNotFound)
    record(session, "role-scopes-changed", role=name, scopes=" ".join(scopes))
    role.scopes = scopes
    session.add(role)
    return RolePublic.model_validate(role)

"""For whoever operates it: health, and the API's own documentation page."""

from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import SQLModel, col

from app.db import Database, in_thread
from app.deps import PartsDep
from app.errors import RolesMissing, Unavailable
from app.models.user import Role
from app.openapi import problems

STATIC = Path(__file__).resolve().parent.parent / "static"

router = APIRouter(tags=["health"])
pages = APIRouter(include_in_schema=False)


class Health(SQLModel):
    status: Literal["ok"] = "ok"


@router.get("/health/live", operation_id="isLive")
async def is_live() -> Health:
    """The process answers. Says nothing of the database: restarting this process would not mend that one."""
    return Health()


@router.get("/health/ready", operation_id="isReady", responses=problems(Unavailable, RolesMissing))
async def is_ready(parts: PartsDep) -> Health:
    """The database answers, is migrated and has its roles: requests may be sent here."""
    await in_thread(_check_database, parts.database)
    return Health()


def _check_database(database: Database) -> None:
    try:
        with database.reading() as session:
            if session.connection().execute(select(col(Role.id)).limit(1)).first() is None:
                raise RolesMissing
    except SQLAlchemyError:
        raise Unavailable("The database does not answer, or is not migrated.") from None


@pages.get("/")
async def home() -> RedirectResponse:
    return RedirectResponse("/api/docs")


@pages.get("/api/docs")
async def docs() -> HTMLResponse:
    """Swagger UI from our own files, so that it works on a closed network."""
    return HTMLResponse((STATIC / "docs.html").read_text())

"""For whoever operates it: health, metrics, and the API's own documentation page."""

from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from secrets import compare_digest
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import SQLModel, col

from app.core import metrics
from app.core.database import Database, in_thread
from app.core.errors import InvalidToken, MetricsRefused, RolesMissing, Unauthenticated, Unavailable
from app.core.settings import get_settings
from app.http.openapi import problems
from app.http.rate_limit import client_address
from app.models.job import Job
from app.models.user import Role
from app.pages.api_client import Api, Refused
from app.services import PartsDep

STATIC = Path(__file__).resolve().parent.parent / "static"
# Strict, as the pages' own: Swagger UI draws its icons as data: images.
DOCS_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

router = APIRouter(tags=["health"])
pages = APIRouter(include_in_schema=False)
alone = APIRouter(include_in_schema=False)  # of the pages, where they run apart from the API

_RETRIED = col(Job.attempts) > 0
_JOBS = select(col(Job.kind), col(Job.state), _RETRIED.label("retried"), func.count().label("number")).group_by(
    col(Job.kind), col(Job.state), _RETRIED
)


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


@router.get(
    "/metrics",
    operation_id="readMetrics",
    response_class=PlainTextResponse,
    responses=problems(Unauthenticated, InvalidToken, MetricsRefused),
)
async def read_metrics(request: Request, parts: PartsDep) -> Response:
    """For Prometheus: with METRICS_TOKEN whoever bears it, without it this machine."""
    check_scraper(request, parts.settings.metrics_token)
    measured = await in_thread(_measure, parts.database)
    return Response(metrics.page(measured), media_type=CONTENT_TYPE_LATEST)


def check_scraper(request: Request, token: str | None) -> None:
    header = request.headers.get("authorization")
    if token is None:
        # Through a proxy on this machine everybody would be a neighbour.
        forwarded = {"x-forwarded-for", "forwarded"} & set(request.headers)
        if forwarded or client_address(request) == "unknown" or not ip_address(client_address(request)).is_loopback:
            raise MetricsRefused
    elif header is None:
        raise Unauthenticated
    elif not compare_digest(header.encode(), f"Bearer {token}".encode()):
        raise InvalidToken


def _measure(database: Database) -> Mapping[str, Mapping[tuple[str, ...], float]]:
    try:
        with database.reading() as session:
            rows = session.connection().execute(_JOBS).all()
    except SQLAlchemyError:
        return {"muster_database_up": {(): 0}}
    jobs: Counter[tuple[str, ...]] = Counter()
    for kind, state, retried, number in rows:
        jobs[kind, "retrying" if retried and state == "waiting" else state] += number
    return {"muster_jobs": jobs, "muster_database_up": {(): 1}}


alone.get("/health/live")(is_live)


@alone.get("/health/ready")
async def are_pages_ready(request: Request) -> Health:
    """The API is ready: a page shows nothing without it."""
    try:
        await Api(request).call("GET", "/health/ready")
    except Refused:
        raise Unavailable("The API is not ready. Try again shortly.") from None
    return Health()


@alone.get("/metrics")
async def read_metrics_of_pages(request: Request) -> Response:
    check_scraper(request, get_settings().metrics_token)
    return Response(metrics.page({}), media_type=CONTENT_TYPE_LATEST)


@pages.get("/")
async def home() -> RedirectResponse:
    return RedirectResponse("/api/docs")


@pages.get("/api/docs")
async def docs() -> HTMLResponse:
    """Swagger UI from our own files, so that it works on a closed network."""
    return HTMLResponse((STATIC / "docs.html").read_text(), headers=DOCS_POLICY)

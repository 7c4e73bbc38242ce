"""Health checks and metrics."""

import logging
from itertools import product
from typing import get_args

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import case, col, func, select

from app.core import metrics
from app.core.concurrency import in_thread
from app.core.database import Database
from app.core.dialects import reason
from app.core.errors import InvalidToken, MetricsRefused, RolesMissing, Unauthenticated, Unavailable, found
from app.http.monitoring import Health, check_scraper
from app.http.openapi import problems
from app.http.routing import Router
from app.models.job import Job, JobKind, JobState
from app.models.user import Role
from app.services import services_of

log = logging.getLogger("muster.error")

router = Router(tags=["health"], route_class=APIRoute)  # monitoring has no rate limit

_REFUSED = problems(Unauthenticated, InvalidToken, MetricsRefused)

_IS_RETRY = (col(Job.state) == "waiting") & (col(Job.attempts) > 0)
_STATE = case((_IS_RETRY, "retrying"), else_=col(Job.state))
# Alerts compare a count with the one before, so the first failed job of a kind has to follow a zero.
_NO_JOBS = dict.fromkeys(product(get_args(JobKind), (*get_args(JobState), "retrying")), 0)


@router.get("/health/live")
async def is_live() -> Health:
    """The process responds. The database is not checked: restarting the process would not repair it."""
    return Health()


@router.get("/health/ready", responses=problems(Unavailable, RolesMissing))
async def is_ready(request: Request) -> Health:
    """The process can take requests: the database responds, is migrated, has its roles, and has room on its disk."""
    await in_thread(_check_database, services_of(request).database)
    return Health()


def _check_database(database: Database) -> None:
    try:
        with database.read.transaction() as session:
            found(session.exec(select(Role.id).limit(1)).first(), RolesMissing(retry_after=60))
    except SQLAlchemyError as error:
        log.warning("not ready: %s", reason(error))
        raise Unavailable("The database does not answer, or is not migrated.") from None
    if not database.can_write():
        raise Unavailable("The disk of the database is full or read-only.", retry_after=10)


@router.get("/metrics", response_class=PlainTextResponse, responses=_REFUSED)
async def read_metrics(request: Request) -> Response:
    """Metrics for Prometheus. Reading them needs METRICS_TOKEN in production; elsewhere, this machine needs none."""
    services = services_of(request)
    check_scraper(request, services.settings)  # before _count_jobs takes a thread: anybody may send this request
    jobs = await in_thread(_count_jobs, services.database)
    return Response(metrics.exposition(metrics.DatabaseMetrics(jobs)), media_type=CONTENT_TYPE_LATEST)


def _count_jobs(database: Database) -> dict[tuple[str, str], int] | None:
    """The jobs of each kind in each state; None if the database does not respond."""
    try:
        with database.read.transaction() as session:
            rows = session.exec(select(Job.kind, _STATE.label("shown"), func.count()).group_by("kind", "shown")).all()
    except SQLAlchemyError:
        return None
    return _NO_JOBS | {(kind, state): number for kind, state, number in rows}

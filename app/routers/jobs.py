"""Background jobs: start one, poll it, download its result, cancel it."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Path, Query, Response
from sqlalchemy.orm import defer
from sqlmodel import Session, col, delete, select, update

from app.core.errors import Conflict, Invalid, NotFound, found
from app.core.settings import get_settings
from app.dependencies import PageDep, ServicesDep, SessionDep, requires
from app.http.openapi import Responses, headers, located, problems
from app.http.rate_limit import RouteLimit, by_person
from app.http.routing import Router
from app.ledger.statement import CSV, PAGE, read_file
from app.models.audit import JobEvent, record
from app.models.base import equal, utcnow
from app.models.job import REQUESTABLE, UNFINISHED, Job, JobFilter, JobPublic, StatementCreate
from app.oauth2.resource_server import Caller

settings = get_settings()
router = Router(prefix="/api/jobs", tags=["jobs"])


class JobNotFound(NotFound, title="No such job"):
    """You have no job with this id."""


class ResultNotFound(NotFound, title="The job has no result"):
    """The job has no result, because it has not finished or because it failed. Its state says which."""


class JobNotEnded(Conflict, title="The job has not failed"):
    """Only a job that failed or was canceled can be started again."""


class JobEnded(Conflict, title="The job has finished"):
    """The job has finished, so it cannot be canceled."""


Me = Annotated[Caller, requires("jobs")]
JobId = Annotated[UUID, Path(description="The id of the job.")]
Filters = Annotated[JobFilter, Query()]
Format = Annotated[Literal["csv", "html"], Query(alias="format", description="Of a statement: its table, or its page.")]

_TEXT = {"schema": {"type": "string"}}
_ARCHIVE = {"schema": {"type": "string", "format": "binary"}}
_RESULT: Responses = {200: {"content": {"text/csv": _TEXT, "text/html": _TEXT, "application/zip": _ARCHIVE}}}
_STARTED = located("/api/jobs/01935b0e-7c1a-7000-8000-0123456789ab", status=202)
# The page repeats the user's own text on this origin, so it may load nothing and run nothing.
_SANDBOX = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'"}

# SQLModel types a column as its value, not as the attribute that defer takes.
_WITHOUT_RESULT = select(Job).options(defer(Job.result, raiseload=True))  # type: ignore[arg-type]


@router.post("/statement", status_code=202, responses=_STARTED)
@RouteLimit(settings.limit_jobs, key=by_person)
def start_statement(
    body: StatementCreate, response: Response, me: Me, session: SessionDep, services: ServicesDep
) -> JobPublic:
    """Create a statement of your operations in a period: a CSV table, and a page with a chart. Poll it at Location.

    It needs `operations:read` too, as its result does.
    """
    me.require(["operations:read"])
    if body.mail and not me.session.is_verified:
        raise Invalid.at("body", "mail", message="Confirm your e-mail address first.", kind="email_unverified")
    period = body.model_dump(mode="json", include={"since", "until"})
    job = services.jobs.enqueue(session, "statement", owner_id=me.user_id, mail=body.mail, **period)
    return _started(job, response)


@router.post("/export", status_code=202, responses=_STARTED)
@RouteLimit(settings.limit_jobs, key=by_person)
def start_export(response: Response, me: Me, session: SessionDep, services: ServicesDep) -> JobPublic:
    """Prepare an archive of everything that is yours, which replaces the one before. Poll it at Location.

    It needs all scopes of your role. While one is being prepared, you get that one.
    """
    me.require(me.session.role_scopes)
    own = (col(Job.owner_id) == me.user_id, col(Job.kind) == "export")
    job = session.exec(_WITHOUT_RESULT.where(*own, col(Job.state).in_(UNFINISHED))).first()
    if job is None:
        session.exec(delete(Job).where(*own))
        job = services.jobs.enqueue(session, "export", owner_id=me.user_id)
    return _started(job, response)


def _started(job: Job, response: Response) -> JobPublic:
    response.headers["Location"] = f"/api/jobs/{job.id}"
    return JobPublic.of(job)


@router.get("")
def list_jobs(me: Me, session: SessionDep, page: PageDep, filters: Filters) -> list[JobPublic]:
    """Your jobs, newest first. With `users:read` everybody's, and those of the service."""
    statement = _WITHOUT_RESULT.where(*_visible(me, "users:read"), *equal(Job, filters))
    jobs = session.exec(page.of(statement, col(Job.id), newest_first=True))
    return [JobPublic.of(job) for job in page.cut(jobs)]


@router.get("/{job_id}", responses={200: {"headers": headers("Retry-After")}, **problems(JobNotFound)})
def read_job(job_id: JobId, response: Response, me: Me, session: SessionDep) -> JobPublic:
    """The state and progress of a job. Until it is finished, Retry-After says when to poll again."""
    job = _read(session, job_id, _visible(me, "users:read"))
    if job.state in UNFINISHED:
        response.headers["Retry-After"] = "2"  # seconds
    return JobPublic.of(job)


@router.get("/{job_id}/result", response_class=Response, responses=_RESULT | problems(JobNotFound, ResultNotFound))
def read_job_result(job_id: JobId, me: Me, session: SessionDep, file_format: Format = "csv") -> Response:
    """The result of a job. That of an export is a zip archive, for its owner alone; that of a statement a CSV table or,
    with `format=html`, a page."""
    job = _read(session, job_id, _visible(me, "users:read"))
    if job.kind == "export":
        me.require(me.session.role_scopes)  # an archive contains whatever the role may read
        if job.owner_id != me.user_id:
            raise ResultNotFound
    else:
        me.require(["operations:read"])
    archive = found(session.exec(select(Job.result).where(Job.id == job_id)).first(), ResultNotFound)
    if job.kind == "export":
        attached = {"Content-Disposition": 'attachment; filename="muster.zip"'}
        return Response(archive, media_type="application/zip", headers=attached)
    if file_format == "html":
        return Response(read_file(archive, PAGE), media_type="text/html", headers=_SANDBOX)
    attached = {"Content-Disposition": f'attachment; filename="{CSV}"'}
    return Response(read_file(archive, CSV), media_type="text/csv", headers=attached)


@router.delete("/{job_id}", status_code=204, responses=problems(JobNotFound, JobEnded))
def cancel_job(job_id: JobId, me: Me, session: SessionDep) -> None:
    """Cancel a job that waits or runs. The work of a running one is discarded."""
    visible = _visible(me, "users:write")
    cancel = update(Job).where(col(Job.id) == job_id, col(Job.state).in_(UNFINISHED), *visible)
    job = session.exec(cancel.values(state="cancelled", finished_at=utcnow()).returning(Job)).scalar_one_or_none()
    if job is not None:
        _record(session, "job-cancelled", me, job)
    elif _read(session, job_id, visible).state != "cancelled":
        raise JobEnded


@router.post("/{job_id}/retry", status_code=202, responses=_STARTED | problems(JobNotFound, JobNotEnded))
@RouteLimit(settings.limit_jobs, key=by_person, exempt_when=lambda request: "users:write" in request.state.scopes)
def retry_job(job_id: JobId, response: Response, me: Me, session: SessionDep, services: ServicesDep) -> JobPublic:
    """Restart a failed or canceled job, with fresh attempts. With `users:write` anybody's."""
    visible = _visible(me, "users:write")
    job = services.jobs.retry(session, col(Job.id) == job_id, *visible)
    if job is None:
        _read(session, job_id, visible)
        raise JobNotEnded
    _record(session, "job-retried", me, job)
    return _started(job, response)


def _record(session: Session, event: JobEvent, me: Caller, job: Job) -> None:
    """Record what an admin did to somebody else's job."""
    if job.owner_id != me.user_id:
        record(session, event, user_id=job.owner_id, job_id=str(job.id), kind=job.kind)


def _visible(me: Caller, scope: str) -> list[Any]:
    """The conditions on the jobs that the caller may reach: their own requests, or with the scope `scope` all jobs."""
    return [] if scope in me.scopes else [col(Job.owner_id) == me.user_id, col(Job.kind).in_(REQUESTABLE)]


def _read(session: Session, job_id: UUID, visible: list[Any]) -> Job:
    return found(session.exec(_WITHOUT_RESULT.where(Job.id == job_id, *visible)).first(), JobNotFound)

"""Background jobs: start one, watch it, fetch its result, cancel it."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header, Path, Query, Response
from sqlalchemy import select, update
from sqlmodel import Session, col

from app.core.errors import JobEnded, JobNotFound, ResultNotFound
from app.core.settings import get_settings
from app.dependencies import JobsUser, PageDep, ServicesDep, SessionDep
from app.http.openapi import headers, problems
from app.http.rate_limit import by_session, limited
from app.http.routing import Router
from app.ledger.statement import CSV, PAGE, read_file
from app.models.base import utcnow
from app.models.job import ASKED_FOR, UNENDED, Job, JobBase, JobPublic, State, StatementCreate
from app.oauth2.authorization_server import Caller

settings = get_settings()
router = Router("/api/jobs", tags=["jobs"])

JobId = Annotated[UUID, Path(description="The id of the job.")]
WantedState = Annotated[State | None, Query(description="Only jobs in this state.", examples=["failed"])]
Format = Annotated[
    Literal["csv", "html"] | None,
    Query(
        alias="format",
        description="The table or the page; left out, a browser gets the page and any other client the table.",
        examples=["html"],
    ),
]

RETRY_AFTER = 2  # seconds
# A page of somebody's own words, shown from this address: it may load nothing and run nothing.
_SANDBOX = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'"}

_SHOWN = [col(getattr(Job, name)) for name in JobBase.model_fields]
_PUBLIC = select(*_SHOWN, col(Job.result).is_not(None).label("has_result"))


def _theirs(me: Caller, everybodys: str) -> list[Any]:
    """Which jobs they may reach: those they asked for, or with the scope `everybodys` all."""
    return [] if everybodys in me.scopes else [col(Job.owner_id) == me.user_id, col(Job.kind).in_(ASKED_FOR)]


@router.post("/statement", status_code=202, responses={202: {"headers": headers("Location")}})
@limited(settings.limit_jobs, key=by_session)
def start_statement(
    body: StatementCreate, response: Response, me: JobsUser, session: SessionDep, services: ServicesDep
) -> JobPublic:
    """Make a statement of your operations in a period: a CSV table, and a page with a chart. Watch it at Location."""
    period = body.model_dump(mode="json", include={"since", "until"})
    job_id = services.jobs.enqueue(session, "statement", owner_id=me.user_id, mail=body.mail, **period)
    response.headers["Location"] = f"/api/jobs/{job_id}"
    return _read(session, [], job_id)


@router.get("")
def list_jobs(me: JobsUser, session: SessionDep, page: PageDep, state: WantedState = None) -> list[JobPublic]:
    """Your jobs, the newest first; with `users:read` everybody's, and the service's own."""
    conditions = [*_theirs(me, "users:read"), *([col(Job.state) == state] if state else [])]
    if page.position:
        conditions.append(col(Job.id) < UUID(page.position[0]))  # a version 7 UUID sorts by its time
    statement = _PUBLIC.where(*conditions).order_by(col(Job.id).desc()).limit(page.limit + 1)
    return page.cut([_public(row) for row in session.connection().execute(statement)], lambda job: [str(job.id)])


@router.get("/{job_id}", responses={200: {"headers": headers("Retry-After")}, **problems(JobNotFound)})
def read_job(job_id: JobId, response: Response, me: JobsUser, session: SessionDep) -> JobPublic:
    """How far a job is. While it waits or runs, Retry-After says when to look again."""
    job = _read(session, _theirs(me, "users:read"), job_id)
    if job.state in UNENDED:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return job


@router.get(
    "/{job_id}/result",
    response_class=Response,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}, "text/html": {"schema": {"type": "string"}}}},
        **problems(JobNotFound, ResultNotFound),
    },
)
def read_job_result(
    job_id: JobId,
    me: JobsUser,
    session: SessionDep,
    form: Format = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """What a job made: the table, or for a browser and with `format=html` the page."""
    _read(session, _theirs(me, "users:read"), job_id)
    archive = session.connection().execute(select(col(Job.result)).where(col(Job.id) == job_id)).scalar()
    if archive is None:
        raise ResultNotFound
    if (form or ("html" if "text/html" in accept else "csv")) == "html":
        return Response(read_file(archive, PAGE), media_type="text/html", headers=_SANDBOX)
    attached = {"Content-Disposition": f'attachment; filename="{CSV}"'}
    return Response(read_file(archive, CSV), media_type="text/csv", headers=attached)


@router.delete("/{job_id}", status_code=204, responses=problems(JobNotFound, JobEnded))
def cancel_job(job_id: JobId, me: JobsUser, session: SessionDep) -> None:
    """Cancel a job that waits or runs. What a running one has done so far is thrown away."""
    theirs = _theirs(me, "users:write")
    unended = (col(Job.id) == job_id, col(Job.state).in_(UNENDED), *theirs)
    values = {"state": "cancelled", "finished_at": utcnow(), "arguments": {}}
    cancelled = session.connection().execute(update(Job).where(*unended).values(**values)).rowcount
    if not cancelled and _read(session, theirs, job_id).state != "cancelled":
        raise JobEnded


def _read(session: Session, conditions: list[Any], job_id: UUID) -> JobPublic:
    row = session.connection().execute(_PUBLIC.where(*conditions, col(Job.id) == job_id)).first()
    if row is None:
        raise JobNotFound
    return _public(row)


def _public(row: Any) -> JobPublic:
    result = f"/api/jobs/{row.id}/result" if row.has_result else None
    return JobPublic.model_validate({**row._asdict(), "result": result})

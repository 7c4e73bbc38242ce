"""The state of the service, for admins: versions, Redis, waiting and failed jobs, and the latest backup."""

from datetime import UTC, datetime
from typing import Literal

from fastapi import Request
from sqlmodel import Field, SQLModel, String, column, func, select, table

from app.core.settings import DATA
from app.dependencies import ServicesDep, SessionDep, requires
from app.http.rate_limit import is_storage_available
from app.http.routing import Router
from app.models.base import described, utcnow
from app.models.job import Job, JobState, QueueName
from app.models.types import UtcTime

router = Router(prefix="/api/system", tags=["system"])

STARTED_AT = utcnow()
_QUEUES = select(Job.queue, Job.state, func.count().label("jobs")).group_by(Job.queue, Job.state)
_MIGRATION = select(column("version_num", String)).select_from(table("alembic_version"))


class DatabaseState(SQLModel):
    kind: Literal["sqlite", "postgresql"] = Field(description="Which database it is.")
    version: str = described("Its version.", "18.1")
    migration: str = described("Its schema's revision.", "31915f03db38")


class JobCount(SQLModel):
    queue: QueueName = Field(description="Where the jobs wait.")
    state: JobState = Field(description="Their state.")
    jobs: int = described("How many there are.", 3)


class Backup(SQLModel):
    name: str | None = described("Its file; null if there is none.", "muster-20261129T020000Z.dump", default=None)
    at: UtcTime | None = Field(default=None, description="When it was written.")


class SystemState(SQLModel):
    version: str = described("The version of the service.", "0.2.0")
    started_at: UtcTime = Field(description="When the process that answers started.")
    database: DatabaseState = Field(description="The database.")
    redis: Literal["none", "available", "unavailable"] = Field(description="none: REDIS_URL is not set.")
    queues: list[JobCount] = described("Jobs by queue and state.", [{"queue": "high", "state": "waiting", "jobs": 3}])
    backup: Backup = Field(description="The newest one in data/backups on the machine that answers.")


@router.get("", dependencies=[requires("users:read")])
def read_system(request: Request, session: SessionDep, services: ServicesDep) -> SystemState:
    """The versions of the service and its database, Redis, the jobs that wait or failed, and the latest backup."""
    settings = services.settings
    version = func.sqlite_version() if settings.on_sqlite else func.current_setting("server_version")
    newest = max((DATA / "backups").glob("muster-*"), default=None)  # their names begin with their times
    backup = Backup(name=newest.name, at=datetime.fromtimestamp(newest.stat().st_mtime, UTC)) if newest else Backup()
    return SystemState(
        version=request.app.version,
        started_at=STARTED_AT,
        database=DatabaseState(
            kind="sqlite" if settings.on_sqlite else "postgresql",
            version=session.exec(select(version)).one(),
            migration=session.exec(_MIGRATION).one(),
        ),
        redis=_redis_state(settings.redis_url),
        queues=[JobCount.model_validate(queue) for queue in session.exec(_QUEUES)],
        backup=backup,
    )


def _redis_state(redis_url: str | None) -> Literal["none", "available", "unavailable"]:
    if redis_url is None:
        return "none"
    return "available" if is_storage_available() else "unavailable"

"""The state of the service, for admins: what runs, and what waits."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from anyio import move_on_after, to_thread
from fastapi import Request
from sqlalchemy import func, literal_column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Field, SQLModel, col

from app.core.database import Database
from app.core.redis import TIMEOUTS
from app.core.settings import DATA
from app.dependencies import ServicesDep, requires
from app.http.routing import Router
from app.models.base import utcnow
from app.models.job import Job, JobState, QueueName
from app.models.types import UtcTime

router = Router("/api/system", tags=["system"])

STARTED_AT = utcnow()
PATIENCE = 1.0  # seconds that a response waits for what is slow

Found = TypeVar("Found")
DatabaseKind = Literal["sqlite", "postgresql"]

_QUEUES = select(col(Job.queue), col(Job.state), func.count().label("jobs")).group_by(Job.queue, Job.state)
_VERSIONS: dict[DatabaseKind, Any] = {
    "sqlite": func.sqlite_version(),
    "postgresql": func.current_setting("server_version"),
}
_MIGRATION = select(literal_column("version_num")).select_from(table("alembic_version")).scalar_subquery()


class DatabaseState(SQLModel):
    kind: DatabaseKind = Field(description="Which database it is.")
    version: str | None = Field(
        description="Its version; null if it did not answer within a second.", schema_extra={"examples": ["18.1"]}
    )
    migration: str | None = Field(description="Its schema's revision.", schema_extra={"examples": ["31915f03db38"]})


class QueueState(SQLModel):
    queue: QueueName = Field(description="Where the jobs wait.")
    state: JobState = Field(description="Their state.")
    jobs: int = Field(description="How many there are.", schema_extra={"examples": [3]})


class Backup(SQLModel):
    name: str | None = Field(
        default=None,
        description="Its file; null if there is none.",
        schema_extra={"examples": ["muster-20261129T020000Z.dump"]},
    )
    at: UtcTime | None = Field(default=None, description="When it was written.")


class System(SQLModel):
    version: str = Field(description="The version of the service.", schema_extra={"examples": ["0.2.0"]})
    started_at: UtcTime = Field(description="When the process that answers started.")
    database: DatabaseState = Field(description="The database.")
    redis: Literal["none", "available", "unavailable"] = Field(description="none: REDIS_URL is not set.")
    queues: list[QueueState] | None = Field(
        description="Jobs by queue and state; null as for the database.",
        schema_extra={"examples": [[{"queue": "high", "state": "waiting", "jobs": 3}]]},
    )
    backup: Backup = Field(description="The newest one in data/backups on the machine that answers.")


@router.get("", dependencies=[requires("users:read")])
async def read_system(request: Request, services: ServicesDep) -> System:
    """The versions of the service and its database, Redis, the jobs that wait or failed, and the latest backup."""
    settings = services.settings
    kind: DatabaseKind = "sqlite" if settings.on_sqlite else "postgresql"
    found, is_available, backup = await asyncio.gather(
        _patiently(lambda: _ask_database(services.database, kind)),
        _patiently(lambda: _ask_redis(settings.redis_url)),
        _patiently(_newest_backup),
    )
    database, queues = found or ({"version": None, "migration": None}, None)
    return System(
        version=request.app.version,
        started_at=STARTED_AT,
        database=DatabaseState(kind=kind, **database),
        redis="none" if settings.redis_url is None else "available" if is_available else "unavailable",
        queues=queues,
        backup=backup or Backup(),
    )


async def _patiently(ask: Callable[[], Found]) -> Found | None:
    """The answer, or None if it takes too long: its thread ends later, when the database or Redis gives up."""
    with move_on_after(PATIENCE):
        return await to_thread.run_sync(ask, abandon_on_cancel=True)
    return None


def _ask_database(database: Database, kind: DatabaseKind) -> tuple[dict[str, Any], list[QueueState]] | None:
    try:
        with database.without_slot() as session:
            versions = session.connection().execute(
                select(_VERSIONS[kind].label("version"), _MIGRATION.label("migration"))
            )
            queues = session.connection().execute(_QUEUES).mappings()
            return dict(versions.mappings().one()), [QueueState.model_validate(queue) for queue in queues]
    except SQLAlchemyError:
        return None


def _ask_redis(redis_url: str | None) -> bool:
    if redis_url is None:
        return False
    from redis import Redis  # noqa: PLC0415  # importing it takes 0.1 s, which only Redis users need
    from redis.exceptions import RedisError  # noqa: PLC0415  # the same

    try:
        with Redis.from_url(redis_url, **TIMEOUTS) as client:
            return bool(client.ping())
    except RedisError:
        return False


def _newest_backup() -> Backup | None:
    file = max((DATA / "backups").glob("muster-*"), default=None)  # their names begin with their times
    return Backup(name=file.name, at=datetime.fromtimestamp(file.stat().st_mtime, UTC)) if file else None

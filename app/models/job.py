"""Background jobs: the table with its rules, and the API's schemas."""

from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from pydantic import StrictBool
from sqlmodel import JSON, CheckConstraint, Field, Index, LargeBinary, SQLModel, String, UniqueConstraint

from app.models.base import Body, described, partial_index, utcnow, uuid7
from app.models.operation import Period
from app.models.types import UtcTime

JobKind = Literal["mail", "statement", "export", "purge"]
JobState = Literal["waiting", "running", "done", "failed", "cancelled"]
QueueName = Literal["high", "default"]
Reason = Annotated[str, Field(schema_extra={"examples": ["The attempt failed (ticket 1f0c3ba5d27e)."]})]
ResultUrl = Annotated[str, Field(schema_extra={"examples": ["/api/jobs/01935b0e-7c1a-7000-8000-0123456789ab/result"]})]
Count = Annotated[int, Field(schema_extra={"examples": [12]})]
# The kinds that users start, watch and cancel themselves. The others belong to the service.
REQUESTABLE = ("statement", "export")
UNFINISHED = ("waiting", "running")
_WORD = String(20)  # the column of a kind, a queue or a state


def _one_of(column: str, values: Any) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(map(repr, get_args(values)))})", name=column)


class JobBase(SQLModel):
    id: UUID = Field(default_factory=uuid7, primary_key=True, description="Its id.")
    kind: JobKind = Field(sa_type=_WORD, description="What it does.")
    queue: QueueName = Field(sa_type=_WORD, description="Where it waits for a worker.")
    state: JobState = Field(default="waiting", sa_type=_WORD, description="`done`, `failed` and `cancelled` are final.")
    progress: float = described("From 0 to 1.", 0.5, default=0.0)
    attempts: int = described("How many times it has been started.", 1, default=0)
    error: Reason | None = Field(default=None, max_length=200, description="Why the latest attempt failed.")
    owner_id: UUID | None = Field(
        default=None, foreign_key="user.id", ondelete="CASCADE", description="Who started it; null for the service."
    )
    created_at: UtcTime = Field(default_factory=utcnow, description="When it was created.")
    started_at: UtcTime | None = Field(default=None, description="When its latest attempt began.")
    finished_at: UtcTime | None = Field(default=None, description="When it ended; null until then.")


class Job(JobBase, table=True):
    """A background job. `name` is unique: it keeps a job from being created twice. `sent_at` is set once the back end
    has the job.

    `result` is a zip archive of files and may be large: lists defer it.
    """

    __table_args__ = (
        UniqueConstraint("name"),
        _one_of("kind", JobKind),
        _one_of("queue", QueueName),
        _one_of("state", JobState),
        Index(None, "owner_id", "id"),
        Index(None, "finished_at"),
        partial_index("finished_at IS NULL", "state", "due_at"),
    )

    name: str | None = Field(default=None, max_length=50)
    arguments: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    due_at: UtcTime = Field(default_factory=utcnow)
    sent_at: UtcTime | None = None
    heartbeat_at: UtcTime | None = None
    result: bytes | None = Field(default=None, sa_type=LargeBinary)

    @property
    def lasting_arguments(self) -> dict[str, Any]:
        """The arguments that a job keeps once it is done: all but the address of a mail."""
        return {name: value for name, value in self.arguments.items() if name != "to"}


class JobPublic(JobBase):
    mail: str | None = described("Which e-mail it sends.", "verification")
    result: ResultUrl | None = Field(description="The URL of the result, once there is one.")
    since: UtcTime | None = Field(serialization_alias="from", description="The beginning of a statement's period.")
    until: UtcTime | None = Field(serialization_alias="to", description="The end of a statement's period.")
    count: Count | None = Field(description="How many operations the result has.")
    size: Count | None = Field(description="The size of its CSV file in bytes.")

    @classmethod
    def of(cls, job: Job) -> "JobPublic":
        facts = {name: job.arguments.get(name) for name in ("since", "until", "count", "size")}
        # Whether there is a result is known without loading it.
        result = f"/api/jobs/{job.id}/result" if job.kind in REQUESTABLE and job.state == "done" else None
        return cls.model_validate(job, update={"mail": job.arguments.get("template"), "result": result, **facts})


class JobFilter(SQLModel):
    """The query parameters that select the jobs of a list."""

    state: JobState | None = described("Only jobs in this state.", "failed", default=None)
    kind: JobKind | None = described("Only jobs of this kind.", "statement", default=None)
    owner_id: UUID | None = Field(default=None, description="Only jobs of this account.")


class StatementCreate(Body, Period):
    """The period of a statement. Without bounds it covers all operations."""

    mail: StrictBool = Field(default=False, description="Also send it by e-mail.")

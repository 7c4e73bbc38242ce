"""A person's jobs over HTTP, and jobs that a test inserts beside the service."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert
from sqlmodel import Session, col, select

from app.models.base import utcnow
from app.models.job import Job, JobKind, JobState, QueueName
from tests.support.servers import Account, Muster, wait_for

STATEMENT = {"since": None, "until": None, "mail": True}
ENDED = {"done", "failed", "cancelled"}


class OwnJobs:
    """Somebody's jobs on a served instance."""

    def __init__(self, muster: Muster, account: Account | None = None) -> None:
        self.muster = muster
        self.account = account or muster.new_account()
        self.tokens = self.account.tokens()
        self.owner_id = UUID(muster.me(self.tokens).json()["id"])

    def verify(self) -> None:
        """Have the account's address verified."""
        self.muster.sql('UPDATE "user" SET is_verified = true WHERE email = :email', email=self.account.email)

    def start(self, **body: Any) -> str:
        """The id of a new statement."""
        answer = self.muster.client.post("/api/jobs/statement", json=body, headers=self.tokens.bearer)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/api/jobs/{answer.json()['id']}"
        return str(answer.json()["id"])

    def read(self, job_id: str) -> dict[str, Any]:
        answer = self.muster.client.get(f"/api/jobs/{job_id}", headers=self.tokens.bearer)
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        assert ("retry-after" in answer.headers) == (job["state"] not in ENDED)
        return job

    def wait(self, job_id: str, state: str = "done", *, seconds: float = 60) -> dict[str, Any]:
        return wait_for(
            lambda: job if (job := self.read(job_id))["state"] == state else None,
            what=f"{job_id} to be {state}",
            seconds=seconds,
        )

    def all(self) -> list[dict[str, Any]]:
        """The newest 200 jobs."""
        answer = self.muster.client.get("/api/jobs?limit=200", headers=self.tokens.bearer)
        assert answer.status_code == 200, answer.text
        jobs: list[dict[str, Any]] = answer.json()
        return jobs

    def forget(self, job_ids: Iterable[str]) -> None:
        """Delete these jobs, whether or not they have run."""
        with self.muster.engine.begin() as connection:
            connection.execute(delete(Job).where(col(Job.id).in_([UUID(job_id) for job_id in job_ids])))

    def write(self, **fields: Any) -> str:
        """The id of a job that no back end knows of, as it is left when a process dies right after its commit."""
        return self.write_many(1, **fields)[0]

    def write_many(
        self,
        count: int,
        *,
        kind: JobKind = "statement",
        queue: QueueName = "default",
        state: JobState = "waiting",
        attempts: int = 0,
        due_in: timedelta = timedelta(0),
        **probe: Any,
    ) -> list[str]:
        jobs = [
            Job(
                kind=kind,
                queue=queue,
                state=state,
                attempts=attempts,
                due_at=utcnow() + due_in,
                owner_id=self.owner_id,
                arguments={**STATEMENT, "probe": probe},
                heartbeat_at=utcnow() if state == "running" else None,
            )
            for _ in range(count)
        ]
        with self.muster.engine.begin() as connection:
            connection.execute(insert(Job), [job.model_dump() for job in jobs])
        return [str(job.id) for job in jobs]

    def effects(self) -> list[str]:
        """The ids of the jobs that queued a mail in the transaction that ended them, once for each mail."""
        with Session(self.muster.engine) as session:
            mails = session.exec(select(Job.arguments).where(Job.kind == "mail"))
            return [arguments["job"] for arguments in mails if arguments["template"] == "statement"]

"""Helpers for tests of jobs: worker processes to kill, and jobs inserted beside the service."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

from sqlalchemy import delete, insert
from sqlmodel import Session, col, select

from app.models.base import utcnow
from app.models.job import Job, JobKind, JobState, QueueName
from tests.support.databases import fresh_database
from tests.support.servers import STARTUP, Account, Muster, wait_for
from tests.support.sessions import connected

SERVICE_WITH_PROBES = "tests.support.apps.service_with_probes:app"
STATEMENT = {"since": None, "until": None, "mail": True}
ENDED = {"done", "failed", "cancelled"}


@contextmanager
def service_with_probes(kind: str, folder: Path, postgres: str, **settings: str) -> Iterator[Muster]:
    """An instance whose statement jobs wait or fail as a test asks."""
    with (
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, app=SERVICE_WITH_PROBES, **settings) as served,
    ):
        yield served


class Worker:
    """A real worker process beside a served instance, with its settings."""

    def __init__(self, muster: Muster, *options: str, app: str = "tests.support.apps.worker_with_probes") -> None:
        self.log_file = muster.folder / f"worker-{uuid4().hex[:8]}.log"
        module = ["celery", "--quiet", "--app", app, "worker", "--without-mingle", "--without-gossip", *options]
        self.process = muster.launch(module, {**os.environ, **muster.settings}, self.log_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the worker finish its jobs first. A test that failed may have left it with one that never ends."""
        if self.process.poll() is None:
            if kind is None:
                self.process.terminate()
            else:
                self.process.kill()
            self.process.wait(STARTUP)

    def kill(self) -> None:
        """Send SIGKILL, in the midst of whatever the worker does."""
        self.process.kill()
        self.process.wait(STARTUP)

    @property
    def log(self) -> str:
        return self.log_file.read_text()


class Board:
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
        with connected(self.muster) as connection:
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
        with connected(self.muster) as connection:
            connection.execute(insert(Job), [job.model_dump() for job in jobs])
        return [str(job.id) for job in jobs]

    def effects(self) -> list[str]:
        """The ids of the jobs that queued a mail in the transaction that ended them, once for each mail."""
        with Session(self.muster.engine) as session:
            mails = session.exec(select(Job.arguments).where(Job.kind == "mail"))
            return [arguments["job"] for arguments in mails if arguments["template"] == "statement"]

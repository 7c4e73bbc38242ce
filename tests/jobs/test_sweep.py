"""The sweep of jobs: what it reads when nearly all jobs are finished."""

from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal
from sqlalchemy import Engine, event, insert

from app.core.database import Database
from app.core.settings import Settings
from app.jobs.queue import JobQueue
from app.models.base import utcnow
from app.models.job import Job
from tests.support.databases import SECRET_KEY, fresh_database


def test_a_sweep_reads_no_finished_jobs(kind: str, folder: Path, postgres: str) -> None:
    plans: list[str] = []

    def explain(connection: Any, _cursor: object, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            prefix = "EXPLAIN QUERY PLAN" if kind == "sqlite" else "EXPLAIN"
            rows = connection.connection.driver_connection.execute(f"{prefix} {statement}", parameters)
            plans.append("\n".join(map(str, rows)))

    with fresh_database(kind, folder, postgres) as url, start_blocking_portal() as portal:
        database = Database(Settings(environment="test", database_url=url, secret_keys=(SECRET_KEY,)), portal)
        with database.thread_scope(write=True) as session:
            done = [Job(kind="mail", queue="high", state="done", finished_at=utcnow()) for _ in range(1000)]
            session.connection().execute(insert(Job), [job.model_dump() for job in done])
        if kind == "postgresql":  # SQLite never counts its rows
            with database.thread_scope(write=True) as session:
                session.connection().exec_driver_sql("ANALYZE job")
        queue = JobQueue(database, None)
        event.listen(Engine, "before_cursor_execute", explain)
        try:
            queue.sweep()
        finally:
            event.remove(Engine, "before_cursor_execute", explain)
            portal.call(database.close)
    assert len(plans) == 3  # jobs without a heartbeat, and those that wait in each queue
    assert [plan for plan in plans if "ix_job_" not in plan] == []

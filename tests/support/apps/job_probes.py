"""Short intervals, and statements that wait, fail or count when a test tells them to. Both the service and the worker
of the tests load it; all else of them is as it is."""

import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text
from sqlmodel import Session

from app.jobs import claim, handlers, queue
from app.jobs.claim import Outcome, Work

MESSAGE = "a secret that no log may hold"


class Handlers(handlers.Handlers):
    def statement(self, job: Work) -> Outcome:
        told = job.arguments.get("told")
        if told is None:
            return super().statement(job)
        while told.get("until") and not Path(told["until"]).exists():
            job.progress(0.5)
            time.sleep(0.01)
        if told.get("fails"):
            raise RuntimeError(MESSAGE)

        def effect(session: Session) -> None:
            session.connection().execute(text("INSERT INTO effect VALUES (:job)"), {"job": str(job.id)})

        return Outcome(then=effect)


def load(module: object) -> None:
    """Into app.main or app.worker."""
    vars(module)["Handlers"] = Handlers
    queue.SWEEP = 0.2
    claim.HEARTBEAT = 0.2
    queue.STALE = timedelta(seconds=3)
    queue.LOST = timedelta(seconds=0.5)
    queue.FIRST_RETRY = timedelta(seconds=0.1)

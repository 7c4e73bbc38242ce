"""Short intervals, and statements that wait, fail or count when a test tells them to. Both the service and the worker
of the tests load it; all else of them is as it is."""

import time
from datetime import timedelta
from pathlib import Path

from app.jobs import claim, handlers, queue
from app.jobs.claim import ClaimedJob, Outcome

MESSAGE = "a secret that no log may hold"


class JobHandlers(handlers.JobHandlers):
    def statement(self, claimed: ClaimedJob) -> Outcome:
        told = claimed.job.arguments.get("told")
        if told is None:
            return super().statement(claimed)
        while told.get("until") and not Path(told["until"]).exists():
            claimed.report_progress(0.5)
            time.sleep(0.01)
        if told.get("fails"):
            raise RuntimeError(MESSAGE)
        return Outcome()


def load(module: object) -> None:
    """Into app.main or app.worker."""
    vars(module)["JobHandlers"] = JobHandlers
    queue.SWEEP_INTERVAL = 0.2
    claim.HEARTBEAT_INTERVAL = 0.2
    queue.STALE_AFTER = timedelta(seconds=3)
    queue.LOST_AFTER = timedelta(seconds=0.5)
    queue.FIRST_DELAY = timedelta(seconds=0.1)

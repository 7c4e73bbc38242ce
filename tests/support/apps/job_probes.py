"""Short intervals, and statement jobs that wait or fail when a test asks for it. Both the service and the worker of the
tests load this; everything else in them is unchanged."""

import time
from datetime import timedelta
from pathlib import Path

from app.jobs import claim, handlers, queue
from app.jobs.claim import ClaimedJob, Outcome

MESSAGE = "a secret that no log may hold"
STALE_AFTER = timedelta(seconds=3)


class JobHandlers(handlers.JobHandlers):
    def statement(self, claimed: ClaimedJob) -> Outcome:
        probe = claimed.job.arguments.get("probe")
        if probe is None:
            return super().statement(claimed)
        while probe.get("until") and not Path(probe["until"]).exists():
            claimed.report_progress(0.5)
            time.sleep(0.01)
        if probe.get("fails"):
            raise RuntimeError(MESSAGE)
        return Outcome()


def load(module: object) -> None:
    """Load the probes into app.main or app.worker."""
    vars(module)["JobHandlers"] = JobHandlers
    queue.SWEEP_INTERVAL = 0.2
    claim.HEARTBEAT_INTERVAL = 0.2
    queue.STALE_AFTER = STALE_AFTER
    queue.LOST_AFTER = timedelta(seconds=0.5)
    queue.FIRST_DELAY = timedelta(seconds=0.1)

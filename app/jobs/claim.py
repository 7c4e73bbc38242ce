"""A claimed job: the claim on its row, the heartbeat that keeps the claim, and the handler's outcome."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlmodel import Session, col, update

from app.core import metrics
from app.core.database import Database
from app.models.base import utcnow
from app.models.job import Job

HEARTBEAT_INTERVAL = 1.0  # seconds; each records the progress too, which people watch


class ClaimLost(Exception):
    """The job was canceled, or requeued because its heartbeat was late: the work of this attempt is discarded."""


class ClaimReleased(Exception):
    """This process is stopping: the job goes back to the queue."""


class Outcome(NamedTuple):
    """The outcome of a handler. `facts` about the result are merged into the job's arguments, so that lists show them
    without loading the result."""

    result: bytes | None = None
    facts: Mapping[str, int] = {}


@dataclass
class ClaimedJob:
    """A job with the claim of one attempt, which holds while the row is running and no later attempt has started."""

    job: Job
    database: Database
    is_stopping: Callable[[], bool]
    _progress: float = 0.0
    _is_lost: bool = False

    @property
    def owner_id(self) -> UUID:
        """The account whose job it is, if users start jobs of its kind."""
        return cast("UUID", self.job.owner_id)

    def report_progress(self, fraction: float) -> None:
        """Note the progress, from 0 to 1. Handlers call this often: it raises ClaimLost if the claim was lost, and
        ClaimReleased if this process is stopping."""
        self._progress = fraction
        if self._is_lost:
            raise ClaimLost
        if self.is_stopping():
            raise ClaimReleased

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Keep the claim alive from a thread of its own."""
        ended = Event()
        thread = Thread(target=self._beat_until, args=[ended], daemon=True, name="heartbeat")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat_until(self, ended: Event) -> None:
        while not ended.wait(HEARTBEAT_INTERVAL):
            try:
                with self.database.thread_scope(write=True) as session:
                    self._is_lost = not self.update(session, progress=self._progress, heartbeat_at=utcnow())
            except Exception:  # the database is unavailable: the next beat may still be in time
                metrics.count("heartbeat_failures")

    def update(self, session: Session, *conditions: Any, **values: Any) -> bool:
        """Update the row if the claim still holds, and return whether it did."""
        attempt = (col(Job.attempts) == self.job.attempts, col(Job.started_at) == self.job.started_at)
        held = (col(Job.id) == self.job.id, col(Job.state) == "running", *attempt)
        return session.exec(update(Job).where(*held, *conditions).values(**values)).rowcount == 1

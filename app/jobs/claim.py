"""A job under way: the claim on its row, the heartbeat that keeps it, and what its handler leaves."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlmodel import Session, col

from app.core import metrics
from app.models.base import utcnow
from app.models.job import Job

HEARTBEAT = 15.0  # seconds
CLAIM: list[Any] = [col(column) for column in (Job.id, Job.kind, Job.attempts, Job.owner_id, Job.arguments)]


class Lost(Exception):
    """The job was cancelled, or taken back because its heartbeat was late: what is done here no longer counts."""


class HandedBack(Exception):
    """This process ends: whoever runs next has the job begun anew."""


@dataclass(frozen=True)
class Outcome:
    """What a handler leaves: written together with the end of its job, once or not at all."""

    result: bytes | None = None
    then: Callable[[Session], None] = lambda _session: None


@dataclass
class Work:
    """The columns of CLAIM. It is ours while the row is running and no attempt came after this one."""

    writing: Callable[[], AbstractContextManager[Session]]
    is_stopping: Callable[[], bool]
    id: UUID
    kind: str
    attempt: int
    owner_id: UUID | None
    arguments: dict[str, Any]
    _part: float = 0.0
    _told: float = field(default_factory=monotonic)
    _lost: bool = False

    def progress(self, part: float) -> None:
        """How much is done, 0 to 1. Handlers call it often: it ends a job that is cancelled, or whose process ends."""
        self._part = part
        if monotonic() - self._told > 1:
            self._beat()
        if self._lost:
            raise Lost
        if self.is_stopping():
            raise HandedBack

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        ended = Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                try:
                    self._beat()
                except Exception:  # the database is away: the next beat may come in time
                    metrics.count("heartbeat_failures")

        thread = Thread(target=beat, daemon=True, name="heartbeat")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self) -> None:
        self._told = monotonic()
        with self.writing() as session:
            self._lost = not self.change(session, progress=self._part, heartbeat_at=utcnow())

    def change(self, session: Session, *conditions: Any, **values: Any) -> bool:
        """Whether it was still ours."""
        ours = (col(Job.id) == self.id, col(Job.state) == "running", col(Job.attempts) == self.attempt)
        return session.connection().execute(update(Job).where(*ours, *conditions).values(**values)).rowcount == 1

    def end(self, session: Session, state: str, *conditions: Any, **values: Any) -> bool:
        """The same, for good. An address is kept no longer than it is needed."""
        kept = {name: value for name, value in self.arguments.items() if name != "to"}
        return self.change(session, *conditions, state=state, finished_at=utcnow(), arguments=kept, **values)

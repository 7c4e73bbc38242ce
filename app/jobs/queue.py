"""Jobs: a row is written in the caller's transaction and handed to an engine after its commit.

The row is the truth (docs/decisions/0008-job-rows-and-queues.md): an engine may lose a message, or give it twice.
Whoever runs a job claims its row first, and every change of a running one is conditional on that claim. A sweep in
every process sends what was not sent, and takes back what nobody runs any more.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_hex
from threading import Event, Thread
from traceback import format_tb
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, update
from sqlmodel import Session, col

from app.core import metrics
from app.core.database import Database, after_commit
from app.core.dialects import insert_missing
from app.jobs.backends import QUEUES, Broker, Threads
from app.jobs.claim import CLAIM, HandedBack, Lost, Outcome, Work
from app.models.base import utcnow
from app.models.job import ASKED_FOR, Job

log = logging.getLogger("muster.jobs")

STALE = timedelta(seconds=60)  # without a heartbeat for so long, a job is taken back
SWEEP = 30.0  # seconds
LOST = timedelta(seconds=30)  # what was sent so long ago, waits, and is in no queue
FIRST_RETRY, LAST_RETRY = timedelta(seconds=10), timedelta(minutes=15)  # each wait is four times the one before
BATCH = 500


ByKind = Mapping[str, Callable[[Work], Outcome]]


class Plan(NamedTuple):
    queue: str
    attempts: int


PLANS = {"mail": Plan("high", 8), "statement": Plan("default", 4), "purge": Plan("default", 4)}


class Jobs:
    """What a process does with jobs: write them, run them, and look after those that got lost."""

    def __init__(self, database: Database, redis_url: str | None) -> None:
        self._database = database
        self._handlers: ByKind = {}
        self._engine: Broker | Threads = Broker(redis_url, self._note_sent) if redis_url else Threads(self.run)
        self._purge = ""
        self._closing = Event()
        self._sweeper = Thread(target=self._sweep_on, daemon=True, name="sweep")

    def start(self, handlers: ByKind) -> None:
        self._handlers = handlers
        self._sweeper.start()

    def close(self) -> None:
        """What runs here is handed back or finished; what waits stays in its row."""
        self.stop()
        self._sweeper.join()
        self._engine.close()

    def stop(self) -> None:
        """Returns at once: what runs here is handed back when it next tells its progress."""
        self._closing.set()

    # ---- Written: in the caller's transaction ----

    def mail(self, session: Session, letter: str, *, owner_id: UUID | None = None, **told: Any) -> None:
        """A mail once this session has committed. `owner_id`: it goes with that account's row when that is deleted."""
        self.enqueue(session, "mail", owner_id=owner_id, letter=letter, **told)

    def enqueue(self, session: Session, kind: str, *, owner_id: UUID | None, **arguments: Any) -> UUID:
        job = Job(kind=kind, queue=PLANS[kind].queue, owner_id=owner_id, arguments=arguments)
        session.add(job)
        session.flush()
        after_commit(session, partial(self._engine.send, job.id, job.queue))
        return job.id

    # ---- Run: claim, handle, end ----

    def run(self, job_id: UUID) -> None:
        """Run it if it waits. Never raises: what cannot even be noted is taken back by a sweep."""
        try:
            work = self._claim(job_id)
            if work is not None:
                self._try(work)
        except Exception as error:
            # The class alone: a database error repeats what the row holds.
            log.error("job %s left to the sweep: %s", job_id, type(error).__name__)  # noqa: TRY400

    def _claim(self, job_id: UUID) -> Work | None:
        now = utcnow()
        waiting = (col(Job.id) == job_id, col(Job.state) == "waiting")
        # A message may be there twice, and must not cut the wait for the next attempt short. A first one is always due.
        is_due = (col(Job.attempts) == 0) | (col(Job.due_at) <= now)
        claim = (
            update(Job)
            .where(*waiting, is_due)
            .values(state="running", attempts=col(Job.attempts) + 1, started_at=now, heartbeat_at=now, progress=0.0)
            .returning(*CLAIM)
        )
        with self._writing() as session:
            row = session.connection().execute(claim).first()
            if row is None:  # too early by this clock: the next sweep sends it again
                session.connection().execute(update(Job).where(*waiting).values(sent_at=None))
        return Work(self._writing, self._closing.is_set, *row) if row else None

    def _try(self, work: Work) -> None:
        try:
            with work.heartbeat():
                outcome = self._handlers[work.kind](work)
            self._finish(work, outcome)
        except Lost:
            log.info("job %s (%s): attempt %d no longer counts", work.id, work.kind, work.attempt)
        except HandedBack:
            self._hand_back(work)
        except Exception as error:
            where = "".join(format_tb(error.__traceback__))  # lines of code: a message may repeat an address
            wait = min(FIRST_RETRY * int(4 ** (work.attempt - 1)), LAST_RETRY)
            self._failed(work, f"{type(error).__name__}\n{where}", wait=wait)

    def _finish(self, work: Work, outcome: Outcome) -> None:
        with self._writing() as session:
            if not work.end(session, "done", result=outcome.result, progress=1.0):
                raise Lost
            outcome.then(session)
        metrics.count("jobs_ended", kind=work.kind, result="done")

    def _hand_back(self, work: Work) -> None:
        """The attempt does not count: nothing was wrong with it."""
        with self._writing() as session:
            again = {"state": "waiting", "attempts": work.attempt - 1, "due_at": utcnow(), "sent_at": None}
            work.change(session, **again)
        log.info("job %s (%s) handed back", work.id, work.kind)

    def _failed(self, work: Work, why: str, *only_if: Any, wait: timedelta) -> None:
        """Another attempt, or the end; the ticket stands in the row and in the log."""
        most, ticket = PLANS[work.kind].attempts, token_hex(6)
        again = work.attempt < most
        error = f"The attempt failed. The ticket {ticket} names the log line."
        with self._writing() as session:
            if again:
                due_at = utcnow() + wait
                ours = work.change(session, *only_if, state="waiting", due_at=due_at, sent_at=None, error=error)
            else:
                ours = work.end(session, "failed", *only_if, error=error)
            if ours and not again and work.kind in ASKED_FOR:
                self.mail(session, "job-failed", owner_id=work.owner_id, what=work.kind, ticket=ticket)
        if ours:
            metrics.count("jobs_ended", kind=work.kind, result="retried" if again else "failed")
            tried = f"attempt {work.attempt} of {most}"
            log.error("ticket %s: job %s (%s), %s: %s", ticket, work.id, work.kind, tried, why)

    # ---- Swept: what got lost ----

    def _sweep_on(self) -> None:
        while True:
            try:
                self.sweep()
            except Exception as error:  # a part is away: the next sweep finds the same
                metrics.count("sweep_failures")
                log.warning("the sweep of jobs failed: %s", type(error).__name__)
            if self._closing.wait(SWEEP):
                break

    def sweep(self) -> None:
        now = utcnow()
        self._take_back(now - STALE)
        self._plan_purge(now)
        for queue in QUEUES:
            self._send_due(queue, now)

    def _take_back(self, before: datetime) -> None:
        """Whoever ran these is gone. No back-off: that took long enough."""
        stale = (col(Job.state) == "running", col(Job.heartbeat_at) < before)
        for row in self._read(select(*CLAIM).where(*stale).limit(BATCH)):
            self._failed(Work(self._writing, self._closing.is_set, *row), "no heartbeat", *stale, wait=timedelta(0))

    def _plan_purge(self, now: datetime) -> None:
        """One a day, whoever is first."""
        name = f"purge {now:%Y-%m-%d}"
        if name != self._purge:
            job = Job(kind="purge", queue=PLANS["purge"].queue, name=name)
            with self._writing() as session:
                insert_missing(session, Job, ["name"], **job.model_dump())
            self._purge = name

    def _send_due(self, queue: str, now: datetime) -> None:
        lost = now - LOST if self._engine.is_empty(queue) else datetime.min.replace(tzinfo=UTC)
        unsent = col(Job.sent_at).is_(None) | (col(Job.sent_at) < lost)
        waiting = (col(Job.state) == "waiting", col(Job.queue) == queue, col(Job.due_at) <= now, unsent)
        for row in self._read(select(col(Job.id)).where(*waiting).order_by(col(Job.id)).limit(BATCH)):
            self._engine.send(row.id, queue)

    def _note_sent(self, job_id: UUID) -> None:
        """So that a sweep sends again only what is in no queue."""
        now = utcnow()
        waiting = (col(Job.id) == job_id, col(Job.state) == "waiting", col(Job.due_at) <= now)
        with self._writing() as session:
            session.connection().execute(update(Job).where(*waiting).values(sent_at=now))

    # ---- Sessions ----

    def _writing(self) -> AbstractContextManager[Session]:
        return self._database.thread_scope(self._database.write_side)

    def _read(self, statement: Any) -> Sequence[Any]:
        with self._database.thread_scope(self._database.read_side) as session:
            return session.connection().execute(statement).all()

"""The job queue: each job is a row, written in the caller's transaction and dispatched to a back end after the commit.

The row is the truth (docs/decisions/0008-job-rows-and-queues.md): a back end may lose a message or deliver it twice.
A process claims the row before it runs the job, and every later change depends on that claim. A sweep in every process
dispatches what was lost and requeues jobs whose heartbeat has stopped.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from secrets import token_hex
from threading import Event, Thread
from traceback import format_tb
from typing import Any, NamedTuple
from uuid import UUID

from sqlmodel import Session, col, func, select, update

from app.core import metrics
from app.core.database import Database, after_commit
from app.core.dialects import insert_missing, reason
from app.email.messages import describe_failure
from app.jobs.backends import QUEUES, CeleryBackend, ThreadBackend
from app.jobs.claim import ClaimedJob, ClaimLost, ClaimReleased, Outcome
from app.models.base import utcnow
from app.models.job import REQUESTABLE, UNFINISHED, Job, JobKind, QueueName

log = logging.getLogger("muster.jobs")

STALE_AFTER = timedelta(seconds=60)  # a running job without a heartbeat for this long is requeued
SWEEP_INTERVAL = 30.0  # seconds
LOST_AFTER = timedelta(seconds=30)  # a waiting job that was sent this long ago and is in no queue is sent again
FIRST_DELAY, MAX_DELAY = timedelta(seconds=10), timedelta(minutes=15)  # each retry waits four times as long
BATCH = 500
FAILED = "The attempt failed"  # all that the job's owner may know
# Once AT_ONCE mails to a person wait, each further one is due this much later, so that other people's overtake it.
AT_ONCE, BEHIND_OTHERS = 5, timedelta(seconds=10)

_UNFINISHED = col(Job.finished_at).is_(None)  # lets a sweep use the index that has no finished jobs


class JobPolicy(NamedTuple):
    queue: QueueName
    max_attempts: int


POLICIES: dict[JobKind, JobPolicy] = {
    "mail": JobPolicy("high", 8),
    "statement": JobPolicy("default", 4),
    "export": JobPolicy("default", 4),
    "purge": JobPolicy("default", 4),
}


class JobQueue:
    """Enqueues jobs, runs those that the back end sends to this process, and sweeps up those that were lost."""

    def __init__(self, database: Database, redis_url: str | None) -> None:
        self._database = database
        if redis_url:
            self._backend: ThreadBackend = CeleryBackend(redis_url, self._mark_sent)
        else:
            self._backend = ThreadBackend(lambda job_id, _queue: self.run(job_id))
        self._handle: Callable[[ClaimedJob], Outcome]
        self._last_purge = ""
        self._stopping = Event()
        self._sweeper = Thread(target=self._sweep_forever, daemon=True, name="sweep")

    def start(self, handle: Callable[[ClaimedJob], Outcome]) -> None:
        self._handle = handle
        self._sweeper.start()

    def close(self) -> None:
        """Release or finish the jobs that run here. Waiting jobs stay in their rows."""
        self.stop()
        self._sweeper.join()
        self._backend.close()

    def stop(self) -> None:
        """Return at once: a job that runs here is released when it next reports its progress."""
        self._stopping.set()

    # ---- Enqueue, in the caller's transaction ----

    def mail(self, session: Session, template: str, *, owner_id: UUID | None = None, **arguments: Any) -> None:
        """Send a mail once this session has committed. With `owner_id` it is dropped together with that account."""
        self.enqueue(session, "mail", owner_id=owner_id, template=template, **arguments)

    def enqueue(self, session: Session, kind: JobKind, *, owner_id: UUID | None, **arguments: Any) -> Job:
        """Insert a job, and send it to the back end after the commit. A mail behind AT_ONCE others of its account is
        left to a later sweep."""
        job = Job(kind=kind, queue=POLICIES[kind].queue, owner_id=owner_id, arguments=arguments)
        mails = (col(Job.owner_id) == owner_id, col(Job.kind) == "mail", col(Job.state).in_(UNFINISHED))
        is_mail = kind == "mail" and owner_id is not None
        ahead = session.exec(select(func.count(col(Job.id))).where(*mails)).one() if is_mail else 0
        job.due_at += max(ahead - AT_ONCE + 1, 0) * BEHIND_OTHERS
        session.add(job)
        session.flush()
        if ahead < AT_ONCE:
            after_commit(session, partial(self._backend.send, job.id, job.queue))
        return job

    def retry(self, session: Session, *conditions: Any) -> Job | None:
        """Restart a failed or canceled job, with fresh attempts; None if there is no such job."""
        fresh: dict[str, Any] = {"state": "waiting", "attempts": 0, "progress": 0.0, "due_at": utcnow()}
        fresh |= dict.fromkeys(("error", "sent_at", "started_at", "finished_at"))
        ended = update(Job).where(col(Job.state).in_(("failed", "cancelled")), *conditions)
        job = session.exec(ended.values(**fresh).returning(Job)).scalar_one_or_none()
        if job is not None:
            after_commit(session, partial(self._backend.send, job.id, job.queue))
        return job

    # ---- Run: claim, handle, finish ----

    def run(self, job_id: UUID) -> None:
        """Run a job if it is due. Never raises: a job whose end cannot be recorded is left to a sweep."""
        try:
            if claimed := self._claim(job_id):
                self._attempt(claimed)
        except Exception as error:
            log.error("job %s left to the sweep: %s", job_id, reason(error))  # noqa: TRY400

    def _claim(self, job_id: UUID) -> ClaimedJob | None:
        now = utcnow()
        waiting = (col(Job.id) == job_id, col(Job.state) == "waiting")
        # A duplicate message must not shorten the delay before a retry. The first attempt is always due.
        is_due = (col(Job.attempts) == 0) | (col(Job.due_at) <= now)
        started = {"state": "running", "started_at": now, "heartbeat_at": now, "progress": 0.0}
        claim = update(Job).where(*waiting, is_due).values(attempts=col(Job.attempts) + 1, **started).returning(Job)
        with self._database.thread_scope(write=True) as session:
            job = session.exec(claim).scalar_one_or_none()
        return ClaimedJob(job, self._database, self._stopping.is_set) if job else None

    def _attempt(self, claimed: ClaimedJob) -> None:
        job = claimed.job
        try:
            with claimed.heartbeat():
                outcome = self._handle(claimed)
            self._complete(claimed, outcome)
        except ClaimLost:
            log.info("job %s (%s): attempt %d no longer counts", job.id, job.kind, job.attempts)
        except ClaimReleased:  # requeue the job: this attempt does not count, since nothing was wrong with it
            with self._database.thread_scope(write=True) as session:
                claimed.update(session, state="waiting", attempts=job.attempts - 1, due_at=utcnow(), sent_at=None)
            log.info("job %s (%s) released", job.id, job.kind)
        except Exception as error:
            where = "".join(format_tb(error.__traceback__))  # lines of code only: a message may repeat an address
            delay = min(FIRST_DELAY * int(4 ** (job.attempts - 1)), MAX_DELAY)
            shown = describe_failure(error) if job.kind == "mail" else FAILED
            self._fail(claimed, f"{type(error).__name__}\n{where}", delay=delay, shown=shown)

    def _complete(self, claimed: ClaimedJob, outcome: Outcome) -> None:
        """Store the outcome, and mail it if its owner has asked for that."""
        job = claimed.job
        with self._database.thread_scope(write=True) as session:
            kept = {"result": outcome.result, "arguments": {**job.lasting_arguments, **outcome.facts}}
            if not claimed.update(session, state="done", finished_at=utcnow(), progress=1.0, **kept):
                raise ClaimLost
            if job.arguments.get("mail"):
                self.mail(session, job.kind, owner_id=job.owner_id, job=str(job.id))
        metrics.count("jobs_ended", kind=job.kind, result="done")

    def _fail(self, claimed: ClaimedJob, details: str, *conditions: Any, delay: timedelta, shown: str = FAILED) -> None:
        """Schedule another attempt, or fail the job for good. The row has the reason `shown` to people, and the log
        the details; both have the ticket."""
        job, ticket = claimed.job, token_hex(6)
        max_attempts = POLICIES[job.kind].max_attempts
        retry = job.attempts < max_attempts
        error = f"{shown} (ticket {ticket})."
        with self._database.thread_scope(write=True) as session:
            later = {"state": "waiting", "due_at": utcnow() + delay, "sent_at": None}
            for_good = {"state": "failed", "finished_at": utcnow()}
            was_held = claimed.update(session, *conditions, error=error, **(later if retry else for_good))
            if was_held and not retry and job.kind in REQUESTABLE:
                name = "archive" if job.kind == "export" else job.kind  # as the pages call it
                self.mail(session, "job-failed", owner_id=job.owner_id, failed_kind=name, ticket=ticket)
        if was_held:
            metrics.count("jobs_ended", kind=job.kind, result="retried" if retry else "failed")
            attempt = f"attempt {job.attempts} of {max_attempts}"
            log.error("ticket %s: job %s (%s), %s: %s", ticket, job.id, job.kind, attempt, details)

    # ---- Sweep ----

    def _sweep_forever(self) -> None:
        while True:
            try:
                self.sweep()
            except Exception as error:  # something is unavailable: the next sweep tries again
                metrics.count("sweep_failures")
                log.warning("the sweep of jobs failed: %s", reason(error))
            if self._stopping.wait(SWEEP_INTERVAL):
                break

    def sweep(self) -> None:
        now = utcnow()
        self._end_stale_attempts(now - STALE_AFTER)
        self._schedule_purge(now)
        for queue in QUEUES:
            self._dispatch_due(queue, now)

    def _end_stale_attempts(self, before: datetime) -> None:
        """Fail the attempts whose heartbeat has stopped, in place of their processes. The next attempt is due at once:
        noticing took long enough."""
        stale = (_UNFINISHED, col(Job.state) == "running", col(Job.heartbeat_at) < before)
        with self._database.thread_scope() as session:
            jobs = session.exec(select(Job).where(*stale).limit(BATCH)).all()
        for job in jobs:
            claimed = ClaimedJob(job, self._database, self._stopping.is_set)
            self._fail(claimed, "no heartbeat", *stale, delay=timedelta(0))

    def _schedule_purge(self, now: datetime) -> None:
        """Enqueue one purge a day: the unique name lets the first process win."""
        name = f"purge {now:%Y-%m-%d}"
        if name != self._last_purge:  # else every sweep would take SQLite's write lock
            purge = Job(kind="purge", queue=POLICIES["purge"].queue, name=name)
            with self._database.thread_scope(write=True) as session:
                insert_missing(session, Job, **purge.model_dump())
            self._last_purge = name

    def _dispatch_due(self, queue: QueueName, now: datetime) -> None:
        is_lost = col(Job.sent_at) < now - LOST_AFTER
        # If the row of the oldest is gone, the comparison is NULL, and no job counts as lost.
        if oldest := self._backend.oldest(queue):
            sent_before = select(Job.sent_at).where(Job.id == oldest).correlate(None).scalar_subquery()
            is_lost &= col(Job.sent_at) < sent_before
        unsent = col(Job.sent_at).is_(None) | is_lost
        waiting = (_UNFINISHED, Job.state == "waiting", Job.queue == queue, Job.due_at <= now, unsent)
        with self._database.thread_scope() as session:
            job_ids = session.exec(select(Job.id).where(*waiting).order_by(col(Job.id)).limit(BATCH)).all()
        for job_id in job_ids:
            self._backend.send(job_id, queue)

    def _mark_sent(self, job_id: UUID) -> None:
        """Record that the back end has the job, so that a sweep resends only jobs that are in no queue."""
        now = utcnow()
        waiting = (col(Job.id) == job_id, col(Job.state) == "waiting", col(Job.due_at) <= now)
        with self._database.thread_scope(write=True) as session:
            session.exec(update(Job).where(*waiting).values(sent_at=now))

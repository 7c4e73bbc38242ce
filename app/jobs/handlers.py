"""The handlers of each kind of job. A job may be started again at any time: repeating one adds no second row or file,
but it may send the same mail twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlmodel import col, delete, select

from app.accounts.users import find_user, find_user_by_email, get_user
from app.core.settings import Settings
from app.email.messages import compose_mail, send_mail
from app.jobs.claim import ClaimedJob, Outcome
from app.jobs.export import BATCH, make_archive
from app.ledger import imports, operations
from app.ledger.statement import FILES, make_statement, read_file
from app.models.audit import AuditEvent
from app.models.base import utcnow, uuid7_at
from app.models.job import Job
from app.models.operation import IdempotencyKey, Operation, OperationFilter, OperationPublic
from app.models.refresh_token import RefreshToken
from app.oauth2.access_tokens import Signers

JOB_RETENTION, AUDIT_RETENTION = timedelta(days=30), timedelta(days=365)
ABANDONED_AFTER = timedelta(hours=1)  # rows of an import whose process was killed
MAX_ATTACHMENT = 2**20  # bytes of an archive: unpacked it is some ten times as large, and mail servers reject more


@dataclass(frozen=True)
class JobHandlers:
    """One method for each kind of job, and the services that they use."""

    settings: Settings
    signers: Signers
    may_mail: Callable[[str, str], bool]  # counts a mail to a recipient, by its template

    def handle(self, claimed: ClaimedJob) -> Outcome:
        # A check constraint limits it to JobKind.
        handler: Callable[[ClaimedJob], Outcome] = getattr(self, claimed.job.kind)
        return handler(claimed)

    def mail(self, claimed: ClaimedJob) -> Outcome:
        """Send a mail. If the job's end cannot be recorded, it is sent again, with the same Message-ID."""
        job, arguments = claimed.job, claimed.job.arguments
        # A new link is recorded on the user, and invalidates older ones.
        with claimed.database.thread_scope(write=True) as session:
            user = find_user(session, job.owner_id) if job.owner_id else find_user_by_email(session, arguments["to"])
            attached = session.get(Job, UUID(arguments["job"])) if "job" in arguments else None
            archive = attached.result if attached else None
            message = compose_mail(job, user, self.settings, self.signers) if user else None
            if message and job.attempts == 1 and not self.may_mail(message["To"], arguments["template"]):
                session.rollback()  # so that the link mailed last stays valid
                return Outcome()
        if message is not None:
            if archive is not None and len(archive) <= MAX_ATTACHMENT:
                for name, subtype in FILES.items():
                    message.add_attachment(read_file(archive, name), maintype="text", subtype=subtype, filename=name)
            send_mail(self.settings, message)
        return Outcome()

    def statement(self, claimed: ClaimedJob) -> Outcome:
        """Build the archive of a statement, which becomes the job's result."""
        bounds = {"from": claimed.job.arguments["since"], "to": claimed.job.arguments["until"]}
        period = OperationFilter.model_validate(bounds)
        with claimed.database.thread_scope() as session:
            owner = get_user(session, claimed.owner_id)
        return Outcome(*make_statement(self._batches(claimed, period), period, owner.name or owner.email))

    def export(self, claimed: ClaimedJob) -> Outcome:
        """Build the archive of everything that the job's owner has, which becomes its result."""
        return Outcome(make_archive(claimed, self._batches(claimed, OperationFilter())))

    def _batches(self, claimed: ClaimedJob, period: OperationFilter) -> Iterator[list[OperationPublic]]:
        """Read each batch in a short session of its own, as the export does."""
        with claimed.database.thread_scope() as session:
            count = operations.count_operations(session, claimed.owner_id, period)
        after, done = None, 0
        while True:
            with claimed.database.thread_scope() as session:
                rows, after = operations.read_batch(session, claimed.owner_id, period, after)
            yield rows
            done += len(rows)
            claimed.report_progress(min(done / max(count, 1), 1.0))
            if after is None:
                break

    def purge(self, claimed: ClaimedJob) -> Outcome:
        """Delete expired rows in short transactions."""
        now = utcnow()
        oldest = now - self.settings.refresh_absolute_ttl
        expired = (col(RefreshToken.idle_expires_at) <= now) | (col(RefreshToken.absolute_expires_at) <= now)
        self._delete(claimed, RefreshToken, expired)
        self._delete(claimed, IdempotencyKey, col(IdempotencyKey.created_at) <= oldest)
        self._delete(claimed, Job, col(Job.finished_at) <= now - JOB_RETENTION)
        self._delete(claimed, AuditEvent, col(AuditEvent.id) < uuid7_at(now - AUDIT_RETENTION))
        self._delete(claimed, Operation, imports.abandoned(now - ABANDONED_AFTER))
        with claimed.database.thread_scope() as session:
            owners = operations.owners_of_tombstones(session, oldest)
        for owner_id in owners:
            with claimed.database.thread_scope(write=True) as session:
                operations.purge_tombstones(session, owner_id, oldest)
            claimed.report_progress(0.5)
        return Outcome()

    def _delete(self, claimed: ClaimedJob, model: Any, condition: Any) -> None:
        """Delete in batches. Rows locked by another transaction are skipped, so that there is no deadlock."""
        batch = select(model.id).where(condition).limit(BATCH).with_for_update(skip_locked=True)
        deletion = delete(model).where(col(model.id).in_(batch)).execution_options(synchronize_session=False)
        deleted = BATCH
        while deleted >= BATCH:
            with claimed.database.thread_scope(write=True) as session:
                deleted = session.exec(deletion).rowcount
            claimed.report_progress(0.1)

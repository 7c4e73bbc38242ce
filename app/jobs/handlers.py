"""What each kind of job does. Each may be begun again at any time: it leaves one row, one file, or one mail twice."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import delete, select
from sqlmodel import Session, col

from app.accounts.users import find_user, find_user_by_email
from app.core.database import Database
from app.core.settings import Settings
from app.email import messages
from app.email.sender import mailer_for
from app.jobs.claim import Outcome, Work
from app.jobs.queue import ByKind, Jobs
from app.ledger import operations
from app.ledger.statement import FILES, make_statement, read_file
from app.models.base import utcnow
from app.models.job import Job
from app.models.operation import IdempotencyKey, Operation, OperationPublic
from app.models.refresh_token import RefreshToken
from app.oauth2.access_tokens import Signers

BATCH = 1000
JOBS_KEPT = timedelta(days=30)
MOST_ATTACHED = 2**20  # bytes of an archive: unpacked, some ten times as many, and mail servers refuse more


@dataclass(frozen=True)
class Handlers:
    """One method for each kind, and what they work with."""

    settings: Settings
    database: Database
    signers: Signers
    jobs: Jobs

    def by_kind(self) -> ByKind:
        return {"mail": self.mail, "statement": self.statement, "purge": self.purge}

    def mail(self, work: Work) -> Outcome:
        """Sent before its job ends, so perhaps again: always with the same Message-ID."""
        told = work.arguments
        with self._reading() as session:
            known = work.owner_id
            account = find_user(session, known) if known else find_user_by_email(session, told["to"])
            archive = _result_of(session, UUID(told["job"])) if "job" in told else None
        message = messages.write(work.id, told, account, self.settings, self.signers)
        if message is not None:
            if archive is not None and len(archive) <= MOST_ATTACHED:
                for name, subtype in FILES.items():
                    message.add_attachment(read_file(archive, name), maintype="text", subtype=subtype, filename=name)
            mailer_for(self.settings).send(message)
        return Outcome()

    def statement(self, work: Work) -> Outcome:
        """The archive is written into the job's own row as it ends, and the mail is asked for then."""
        since, until = (_moment(work.arguments[name]) for name in ("since", "until"))
        conditions = [col(Operation.date) >= since] if since else []
        conditions += [col(Operation.date) < until] if until else []
        archive = make_statement(self._batches(work, conditions), since, until)

        def mail(session: Session) -> None:
            self.jobs.mail(session, "statement", owner_id=work.owner_id, job=str(work.id))

        return Outcome(archive, mail) if work.arguments["mail"] else Outcome(archive)

    def _batches(self, work: Work, conditions: list[Any]) -> Iterator[list[OperationPublic]]:
        """Each in a short session of its own, as an export reads them."""
        owner_id = cast("UUID", work.owner_id)
        with self._reading() as session:
            count = operations.count_operations(session, owner_id, conditions)
        after, done = None, 0
        while True:
            with self._reading() as session:
                rows = operations.list_operations(session, owner_id, conditions, after=after, limit=BATCH)
            yield rows
            done += len(rows)
            work.progress(min(done / max(count, 1), 1.0))
            if len(rows) < BATCH:
                break
            after = operations.position(rows[-1])

    def purge(self, work: Work) -> Outcome:
        """What nothing can ask for any more, in short transactions."""
        now = utcnow()
        oldest = now - self.settings.refresh_absolute_ttl
        expired = (col(RefreshToken.idle_expires_at) <= now) | (col(RefreshToken.absolute_expires_at) <= now)
        self._delete(work, col(RefreshToken.id), expired)
        self._delete(work, col(IdempotencyKey.id), col(IdempotencyKey.created_at) <= oldest)
        self._delete(work, col(Job.id), col(Job.finished_at) <= now - JOBS_KEPT)
        with self._reading() as session:
            owners = operations.owners_of_tombstones(session, oldest)
        for owner_id in owners:
            with self._writing() as session:
                operations.purge_tombstones(session, owner_id, oldest)
            work.progress(0.5)
        return Outcome()

    def _delete(self, work: Work, key: Any, condition: Any) -> None:
        """In batches, and never waiting for a row that somebody else changes: so it cannot deadlock."""
        some = select(key).where(condition).limit(BATCH).with_for_update(skip_locked=True)
        deleted = BATCH
        while deleted >= BATCH:
            with self._writing() as session:
                deleted = session.connection().execute(delete(key.table).where(key.in_(some))).rowcount
            work.progress(0.1)

    def _reading(self) -> AbstractContextManager[Session]:
        return self.database.thread_scope(self.database.read_side)

    def _writing(self) -> AbstractContextManager[Session]:
        return self.database.thread_scope(self.database.write_side)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _result_of(session: Session, job_id: UUID) -> bytes | None:
    return session.connection().execute(select(col(Job.result)).where(col(Job.id) == job_id)).scalar()

"""The audit log: who did what to which account, role, client or job, when and from where.

An event is a row of the caller's transaction, and a line of the log once that is committed. Neither has secrets, e-mail
addresses or text that a client has chosen. docs/api/administration.md says what stays of a deleted account.
"""

from functools import partial
from typing import Any, Literal
from uuid import UUID

from sqlmodel import JSON, Field, Index, Session, SQLModel, col, delete, update

from app.core.addresses import parse_address
from app.core.database import after_commit
from app.core.logs import actor, client_host, security_event
from app.models.base import described, utcnow, uuid7
from app.models.types import StoredEmail, UtcTime

SessionEvent = Literal["sign-in", "sign-in-refused", "sign-out", "session-revoked", "sessions-revoked", "token-reused"]
AccountEvent = Literal[
    "account-created", "account-renamed", "account-disabled", "account-enabled", "account-deleted", "identity-added"
]
PasswordEvent = Literal["password-changed", "password-reset"]
EmailEvent = Literal["email-verified", "email-change-requested", "email-changed", "email-lost"]
RoleEvent = Literal["role-changed", "role-scopes-changed"]
ClientEvent = Literal["client-registered", "client-changed", "client-removed"]
JobEvent = Literal["job-retried", "job-cancelled"]
EventName = Literal[SessionEvent, AccountEvent, PasswordEvent, EmailEvent, RoleEvent, ClientEvent, JobEvent]
_DETAILS = "More about it: `method` of a sign-in, `reason` of a refusal, `role`, `scopes`, `client_id`, and so on."


class AuditEventBase(SQLModel):
    id: UUID = Field(default_factory=uuid7, primary_key=True, description="Its id.")
    at: UtcTime = Field(default_factory=utcnow, description="When it happened.")
    event: str = described("What happened.", "sign-in", max_length=50)
    session_id: UUID | None = Field(default=None, description="The session that began or ended.")
    address: str = described("The client's IP address; empty if none.", "192.0.2.7", default="", max_length=45)
    details: dict[str, str] = described(_DETAILS, {"method": "password"}, default_factory=dict, sa_type=JSON)


class AuditEvent(AuditEventBase, table=True):
    """An event of the audit log. It has no foreign keys, since events outlive the accounts that they name."""

    __tablename__ = "audit_event"
    __table_args__ = (Index(None, "user_id", "id"), Index(None, "actor_id", "id"), Index(None, "event", "id"))

    actor_id: UUID | None = None  # None: the service, the operator, or somebody who had not signed in
    user_id: UUID | None = None


# ---- Writing ----


def record(
    session: Session,
    event: EventName,
    *,
    user_id: UUID | None = None,
    session_id: UUID | None = None,
    by_owner: bool = False,
    **details: str,
) -> None:
    """Add an event to this transaction, and to the log once it is committed.

    The actor is the authenticated caller of the request or, with `by_owner`, the account's owner, who has just proved
    their identity otherwise, such as by a password or a mailed link.
    """
    actor_id = user_id if by_owner else actor.get()
    ids: dict[str, Any] = {"user_id": user_id, "session_id": session_id, "actor_id": actor_id}
    host = client_host.get()  # "" outside of requests
    address = parse_address(host) if host else ""
    session.add(AuditEvent(event=event, address=address, details=details, **ids))
    after_commit(session, partial(security_event, event, **ids, **details))


def record_deletion(session: Session, user_id: UUID) -> None:
    """Record that an account is deleted. Delete the events on it that its owner or nobody signed in caused, and blank
    the IP addresses of what its owner did to others. Those events, and what admins did to it, stay under an id that
    belongs to nobody."""
    mine = col(AuditEvent.actor_id) == user_id
    by_nobody = col(AuditEvent.actor_id).is_(None)
    session.exec(delete(AuditEvent).where(col(AuditEvent.user_id) == user_id, mine | by_nobody))
    record(session, "account-deleted", user_id=user_id)
    session.exec(update(AuditEvent).where(mine).values(address=""))


# ---- Reading ----


class AuditFilter(SQLModel):
    """The query parameters that select events."""

    user_id: UUID | None = Field(default=None, description="Only what happened to this account.")
    actor_id: UUID | None = Field(default=None, description="Only what this account did.")
    event: EventName | None = Field(default=None, description="Only events of this kind.")


_ACTOR = "Who did it; null: the service, or somebody who had not signed in."


class AuditEventPublic(AuditEventBase):
    """An event, as admins see it."""

    actor_id: UUID | None = Field(description=_ACTOR)
    actor_email: StoredEmail | None = Field(description="Their current address; null once the account is deleted.")
    user_id: UUID | None = Field(description="Whose account it concerns.")
    user_email: StoredEmail | None = Field(description="The account's current address.")


class OwnAuditEvent(AuditEventBase):
    """An event of the caller's own account. Which admin acted, and from where, is not shown."""

    by: Literal["you", "administrator"] | None = Field(description=_ACTOR)

    @classmethod
    def of(cls, row: AuditEvent) -> "OwnAuditEvent":
        is_others = row.actor_id not in {None, row.user_id}
        by = None if row.actor_id is None else "administrator" if is_others else "you"
        return cls.model_validate(row, update={"by": by, "address": "" if is_others else row.address})

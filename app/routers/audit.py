"""The audit log: all of it for admins, and everybody's own."""

from typing import Annotated
from uuid import UUID

from fastapi import Query
from sqlmodel import col, select

from app.dependencies import CurrentUser, PageDep, SessionDep, requires
from app.http.routing import Router
from app.models.audit import AuditEvent, AuditEventPublic, AuditFilter, OwnAuditEvent
from app.models.base import equal
from app.models.user import User

router = Router(prefix="/api", tags=["audit"])

Filters = Annotated[AuditFilter, Query()]


@router.get("/audit", dependencies=[requires("users:read")])
def list_audit_events(filters: Filters, session: SessionDep, page: PageDep) -> list[AuditEventPublic]:
    """Audit events of accounts, roles and clients, newest first. They are kept for a year."""
    statement = select(AuditEvent).where(*equal(AuditEvent, filters))
    events = page.cut(session.exec(page.of(statement, col(AuditEvent.id), newest_first=True)))
    ids = {user_id for event in events for user_id in (event.actor_id, event.user_id)}
    emails: dict[UUID | None, str] = dict(session.exec(select(User.id, User.email).where(col(User.id).in_(ids))).all())

    def with_emails(event: AuditEvent) -> AuditEventPublic:
        current = {"actor_email": emails.get(event.actor_id), "user_email": emails.get(event.user_id)}
        return AuditEventPublic.model_validate(event, update=current)

    return [with_emails(event) for event in events]


@router.get("/users/me/audit")
def list_my_audit_events(me: CurrentUser, session: SessionDep, page: PageDep) -> list[OwnAuditEvent]:
    """Audit events of your account, newest first: sign-ins, refused sign-ins, and changes by you or an admin."""
    statement = select(AuditEvent).where(AuditEvent.user_id == me.user_id)
    events = session.exec(page.of(statement, col(AuditEvent.id), newest_first=True))
    return [OwnAuditEvent.of(event) for event in page.cut(events)]

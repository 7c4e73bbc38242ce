"""The audit log: all of it for admins, and everybody's own."""

from typing import Annotated
from uuid import UUID

from fastapi import Query
from sqlalchemy.orm import aliased
from sqlmodel import col, select

from app.dependencies import CurrentUser, Page, PageDep, SessionDep, requires
from app.http.routing import Router
from app.models.audit import AuditEvent, AuditEventPublic, AuditFilter, OwnAuditEvent
from app.models.user import User

router = Router("/api", tags=["audit"])


@router.get("/audit", dependencies=[requires("users:read")])
def list_audit_events(
    filters: Annotated[AuditFilter, Query()], session: SessionDep, page: PageDep
) -> list[AuditEventPublic]:
    """What happened to accounts, roles and clients, the newest first. Kept for a year."""
    actor = aliased(User)
    statement = (
        select(AuditEvent, col(actor.email), col(User.email))
        .outerjoin(actor, col(actor.id) == AuditEvent.actor_id)
        .outerjoin(User, col(User.id) == AuditEvent.user_id)
        .where(*filters.conditions(), *_before(page))
    )
    rows = session.exec(statement.order_by(col(AuditEvent.id).desc()).limit(page.limit + 1)).all()
    return [
        AuditEventPublic.model_validate(row, update={"actor_email": actor_email, "user_email": user_email})
        for row, actor_email, user_email in page.cut(rows, lambda found: [str(found[0].id)])
    ]


@router.get("/users/me/audit")
def list_my_audit_events(me: CurrentUser, session: SessionDep, page: PageDep) -> list[OwnAuditEvent]:
    """What happened to your account, the newest first: sign-ins, refused ones, and changes by you or an admin."""
    statement = select(AuditEvent).where(AuditEvent.user_id == me.user_id, *_before(page))
    rows = session.exec(statement.order_by(col(AuditEvent.id).desc()).limit(page.limit + 1)).all()
    return [OwnAuditEvent.of(row) for row in page.cut(rows, lambda row: [str(row.id)])]


def _before(page: Page) -> list[bool]:
    """The condition of the rows after the cursor: UUIDs of version 7 are in order of time."""
    return [AuditEvent.id < UUID(page.position[0])] if page.position else []

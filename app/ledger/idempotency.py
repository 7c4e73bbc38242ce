"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a repeated request gets the first one's response."""

from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

from sqlmodel import Session, SQLModel, select

from app.core.dialects import dialect_insert
from app.core.errors import IdempotencyKeyReused
from app.core.settings import get_settings
from app.ledger.operations import lock_owner
from app.models.operation import IdempotencyKey


class IdempotentRequest(NamedTuple):
    """A request that the client may repeat under its `key`, if it has one."""

    owner_id: UUID
    key: str | None
    route: str
    content: bytes
    now: datetime

    @property
    def fingerprint(self) -> str:
        """A hash of everything that requests with the same key must have in common."""
        return sha256(self.route.encode() + b"\0" + self.content).hexdigest()


def respond_once(session: Session, request: IdempotentRequest, make: Callable[[Session], SQLModel]) -> dict[str, Any]:
    """The body of the response: the one stored with the key, or else a new one, which `make` returns.

    The owner's row is locked first, so that concurrent requests wait for the first one's commit. An error rolls
    the transaction back, and the key with it, so no error is ever stored.
    """
    if request.key is None:
        return make(session).model_dump(mode="json")
    lock_owner(session, request.owner_id)
    if earlier := earlier_body(session, request):
        return earlier
    body = make(session).model_dump(mode="json")
    values: dict[str, Any] = {"owner_id": request.owner_id, "key": request.key, "created_at": request.now}
    # Processes of the release before read "headers".
    values |= {"fingerprint": request.fingerprint, "answer": {"headers": {}, "body": body}}
    insert = dialect_insert(session, IdempotencyKey).values(values)  # overwrites one that has expired
    session.exec(insert.on_conflict_do_update(index_elements=["owner_id", "key"], set_=values))
    return body


def earlier_body(session: Session, request: IdempotentRequest) -> dict[str, Any] | None:
    """The body stored with the request's key, if any: to check before work that happens outside `respond_once`."""
    expired = request.now - get_settings().refresh_absolute_ttl
    own = (IdempotencyKey.owner_id == request.owner_id, IdempotencyKey.key == request.key)
    stored = session.exec(select(IdempotencyKey).where(*own, IdempotencyKey.created_at > expired)).one_or_none()
    if stored and stored.fingerprint != request.fingerprint:
        raise IdempotencyKeyReused
    return stored.answer["body"] if stored else None

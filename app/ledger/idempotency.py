"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a repeated request gets the first one's response."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlmodel import Session, SQLModel, select
from sqlmodel.sql.expression import SelectOfScalar

from app.core.errors import IdempotencyKeyReused
from app.ledger.operations import lock_owner
from app.models.operation import IdempotencyKey


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
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


def respond_once(
    session: Session, request: IdempotentRequest, respond: Callable[[Session], SQLModel]
) -> dict[str, Any]:
    """The body of the response: the one stored with the key, or else a new one, which `respond` makes.

    The owner's row is locked first, so that concurrent requests wait for the first one's commit. An error rolls
    the transaction back, and the key with it, so no error is ever stored.
    """
    if request.key is None:
        return respond(session).model_dump(mode="json")
    lock_owner(session, request.owner_id)
    # Locked, so that the daily purge leaves out an expired key which is about to be overwritten.
    stored = session.exec(_key_of(request).with_for_update()).one_or_none()
    if earlier := _body(stored, request):
        return earlier
    body = respond(session).model_dump(mode="json")
    values: dict[str, Any] = {
        "owner_id": request.owner_id,
        "key": request.key,
        "fingerprint": request.fingerprint,
        "answer": {"headers": {}, "body": body},
        "created_at": request.now,
    }
    session.add(stored.sqlmodel_update(values) if stored else IdempotencyKey(**values))
    return body


def earlier_body(session: Session, request: IdempotentRequest) -> dict[str, Any] | None:
    """The body stored with the request's key, if any: to check before work that happens outside `respond_once`."""
    return _body(session.exec(_key_of(request)).one_or_none(), request)


def _key_of(request: IdempotentRequest) -> SelectOfScalar[IdempotencyKey]:
    own = (IdempotencyKey.owner_id == request.owner_id, IdempotencyKey.key == request.key)
    return select(IdempotencyKey).where(*own)


def _body(stored: IdempotencyKey | None, request: IdempotentRequest) -> dict[str, Any] | None:
    if stored is None or stored.has_expired(request.now):
        return None
    if stored.fingerprint != request.fingerprint:
        raise IdempotencyKeyReused
    body: dict[str, Any] = stored.answer["body"]
    return body

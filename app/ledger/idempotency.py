"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a repeated request gets the first one's response."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from sqlmodel import Session, select

from app.core.errors import IdempotencyKeyReused
from app.ledger.operations import lock_owner
from app.models.operation import IdempotencyKey

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


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
    session: Session,
    request: IdempotentRequest,
    respond: Callable[[Session, IdempotentRequest, T], StoredResponse],
    body: T,
) -> StoredResponse:
    """The response to `body`: the one stored with the key, or else a new one, which `respond` makes.

    The owner's row is locked first, so that concurrent requests wait for the first one's commit. An error rolls
    the transaction back, and the key with it, so no error is ever stored.
    """
    if request.key is None:
        return respond(session, request, body)
    lock_owner(session, request.owner_id)
    stored = _find(session, request)
    if earlier := _response(stored, request):
        return earlier
    if stored is not None:
        session.delete(stored)
        session.flush()
    response = respond(session, request, body)
    key = IdempotencyKey(
        owner_id=request.owner_id,
        key=request.key,
        fingerprint=request.fingerprint,
        status=response.status,
        answer={"headers": response.headers, "body": response.body},
        created_at=request.now,
    )
    session.add(key)
    session.flush()
    return response


def earlier_response(session: Session, request: IdempotentRequest) -> StoredResponse | None:
    """The response stored with the request's key, if any: to check before work that happens outside `respond_once`."""
    return _response(_find(session, request), request)


def _find(session: Session, request: IdempotentRequest) -> IdempotencyKey | None:
    own = (IdempotencyKey.owner_id == request.owner_id, IdempotencyKey.key == request.key)
    return session.exec(select(IdempotencyKey).where(*own)).one_or_none()


def _response(stored: IdempotencyKey | None, request: IdempotentRequest) -> StoredResponse | None:
    if stored is None or stored.has_expired(request.now):
        return None
    if stored.fingerprint != request.fingerprint:
        raise IdempotencyKeyReused
    return StoredResponse(stored.status, **stored.answer)

"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a request sent again gets the first one's answer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, insert, select
from sqlmodel import Session, col

from app.core.errors import IdempotencyKeyReused
from app.ledger.operations import lock_owner
from app.models.operation import IdempotencyKey


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that may be sent again under its `key`. What was kept before `oldest` counts as absent."""

    owner_id: UUID
    key: str | None
    fingerprint: str
    now: datetime
    oldest: datetime


_OWN = (col(IdempotencyKey.owner_id) == bindparam("owner"), col(IdempotencyKey.key) == bindparam("name"))
_COLUMNS = (IdempotencyKey.fingerprint, IdempotencyKey.status, IdempotencyKey.answer, IdempotencyKey.created_at)
_KEPT = select(*[col(column) for column in _COLUMNS]).where(*_OWN)
_FORGET = delete(IdempotencyKey).where(*_OWN)


def fingerprint(route: str, content: bytes) -> str:
    return sha256(route.encode() + b"\0" + content).hexdigest()


def once(session: Session, attempt: Attempt, work: Callable[[], Answer]) -> Answer:
    """The answer that the key's first request got; `work` makes it if this is the first, or if there is no key.

    The owner's row is locked first, so that racing requests wait for the first one's commit. An error keeps nothing:
    its transaction is rolled back, and the key with it.
    """
    if attempt.key is None:
        return work()
    lock_owner(session, attempt.owner_id)
    own = {"owner": attempt.owner_id, "name": attempt.key}
    kept = session.connection().execute(_KEPT, own).first()
    if kept is not None and kept.created_at > attempt.oldest:
        if kept.fingerprint != attempt.fingerprint:
            raise IdempotencyKeyReused
        return Answer(kept.status, kept.answer["headers"], kept.answer["body"])
    if kept is not None:
        session.connection().execute(_FORGET, own)
    answer = work()
    row = IdempotencyKey(
        owner_id=attempt.owner_id,
        key=attempt.key,
        fingerprint=attempt.fingerprint,
        status=answer.status,
        answer={"headers": answer.headers, "body": answer.body},
        created_at=attempt.now,
    )
    session.connection().execute(insert(IdempotencyKey), row.model_dump(exclude={"id"}))
    return answer

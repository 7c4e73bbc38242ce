"""Chat messages as rows: one sequence of numbers for each room, in the order of the commits.

Whoever writes raises the room's counter first and keeps it locked until the commit (docs/decisions/0009-chat.md).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, select, update
from sqlmodel import Session, col

from app.core.dialects import insert_missing, insert_once
from app.core.errors import Conflict, IdempotencyKeyReused
from app.models.chat import ChatMessage, ChatMessageCreate, ChatMessagePublic, ChatRoom
from app.models.user import User

_REUSED = "This client_message_id was sent with another message. Make a new one for each."

_PUBLIC: Select[*tuple[Any, ...]] = select(
    col(ChatMessage.id),
    col(ChatMessage.room),
    col(ChatMessage.number),
    col(ChatMessage.author_id),
    col(User.name).label("author"),
    col(ChatMessage.text),
    col(ChatMessage.client_message_id),
    col(ChatMessage.created_at),
).join(User, col(User.id) == col(ChatMessage.author_id))
_SENT = _PUBLIC.where(
    col(ChatMessage.author_id) == bindparam("author"), col(ChatMessage.client_message_id) == bindparam("client_id")
)
_TAKE = (
    update(ChatRoom)
    .where(col(ChatRoom.name) == bindparam("room"))
    .values(last_number=col(ChatRoom.last_number) + 1)
    .returning(col(ChatRoom.last_number))
)


@dataclass(frozen=True)
class Message:
    """A stored message, encoded once for all who read it: `json` is its ChatMessagePublic."""

    room: str
    number: int
    json: str

    @classmethod
    def of(cls, public: ChatMessagePublic) -> "Message":
        return cls(public.room, public.number, public.model_dump_json())

    @cached_property
    def frame(self) -> str:
        """What a socket is sent."""
        return f'{{"type":"message",{self.json[1:]}'

    @cached_property
    def event(self) -> bytes:
        """What an event stream is sent."""
        return f"id: {self.number}\nevent: message\ndata: {self.json}\n\n".encode()


# ---- What is written ----


def store(
    session: Session, author_id: UUID, author: str | None, body: ChatMessageCreate, now: datetime
) -> tuple[ChatMessagePublic, bool]:
    """The message and whether it is new. Sent again with the same client_message_id it is the first one."""
    first = _sent(session, author_id, body)
    if first is None:
        values = {**dict(body), "number": _take_number(session, body.room), "author_id": author_id, "created_at": now}
        once = insert_once(session, ChatMessage, ["author_id", "client_message_id"])
        new_id = session.connection().execute(once.returning(col(ChatMessage.id)), values).scalar_one_or_none()
        if new_id is not None:
            return ChatMessagePublic(id=new_id, author=author, **values), True
        first = _sent(session, author_id, body)  # another request was first; the number stays unused
    if first is None:
        raise Conflict
    return first, False


def _sent(session: Session, author_id: UUID, body: ChatMessageCreate) -> ChatMessagePublic | None:
    if body.client_message_id is None:
        return None
    values = {"author": author_id, "client_id": body.client_message_id}
    row = session.connection().execute(_SENT, values).first()
    if row is not None and (row.room, row.text) != (body.room, body.text):
        raise IdempotencyKeyReused(_REUSED)
    return None if row is None else _public(row)


def _take_number(session: Session, room: str) -> int:
    """The next one. Nobody else takes one of this room until the transaction ends."""
    number = session.connection().execute(_TAKE, {"room": room}).scalar_one_or_none()
    if number is None:
        insert_missing(session, ChatRoom, ["name"], name=room, last_number=0)
        number = session.connection().execute(_TAKE, {"room": room}).scalar_one()
    return int(number)


# ---- What is read ----


def read_messages(
    session: Session, room: str, *, limit: int, after: int | None = None, before: int | None = None
) -> list[Message]:
    """In ascending order: the first ones after a number, or else the last ones, if need be before a number."""
    statement = _PUBLIC.where(col(ChatMessage.room) == room).limit(limit)
    if before is not None:
        statement = statement.where(col(ChatMessage.number) < before)
    if after is None:
        rows: Sequence[Any] = session.connection().execute(statement.order_by(col(ChatMessage.number).desc())).all()
        rows = rows[::-1]
    else:
        statement = statement.where(col(ChatMessage.number) > after)
        rows = session.connection().execute(statement.order_by(col(ChatMessage.number))).all()
    return [Message.of(_public(row)) for row in rows]


def last_numbers(session: Session, rooms: Collection[str]) -> dict[str, int]:
    """Of those rooms in which something was ever written."""
    statement = select(col(ChatRoom.name), col(ChatRoom.last_number)).where(col(ChatRoom.name).in_(rooms))
    return {row.name: row.last_number for row in session.connection().execute(statement)}


def _public(row: Any) -> ChatMessagePublic:
    return ChatMessagePublic(**row._asdict())

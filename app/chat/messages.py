"""The chat's store: messages as rows, numbered within each room in the order of their commits.

Writing a message increments the counter of its room, which stays locked until the commit
(docs/decisions/0009-chat.md). This is one of the three places that go past the session to Core: 50 messages take 650 µs
of CPU until they are JSON, and as entities 1,030. The fields of ChatMessagePublic name the columns.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy import select as select_columns
from sqlmodel import Session, bindparam, col, select

from app.core.dialects import dialect_insert
from app.core.errors import Conflict, IdempotencyKeyReused, found
from app.models.chat import ChatMessage, ChatMessageCreate, ChatMessagePublic, ChatRoom
from app.models.user import User
from app.oauth2.resource_server import Caller

_REUSED = "This client_message_id was sent with another message. Use a new one for each message."

_MESSAGES: Select[*tuple[Any, ...]] = select_columns(
    *(col(getattr(ChatMessage, name)) for name in ChatMessagePublic.model_fields if name != "author"),
    col(User.name).label("author"),
).join(User, col(User.id) == col(ChatMessage.author_id))
_BY_AUTHOR = _MESSAGES.where(col(ChatMessage.author_id) == bindparam("author_id"))
_SENT = _BY_AUTHOR.where(col(ChatMessage.client_message_id) == bindparam("client_message_id"))


@dataclass(frozen=True)
class Message:
    """A stored message, encoded once for all subscribers: `json` is its ChatMessagePublic."""

    room: str
    number: int
    json: str

    @classmethod
    def of(cls, public: ChatMessagePublic) -> "Message":
        return cls(public.room, public.number, public.model_dump_json())

    @cached_property
    def frame(self) -> str:
        """The message as a frame of a WebSocket."""
        return f'{{"type":"message",{self.json[1:]}'

    @cached_property
    def event(self) -> bytes:
        """The message as a server-sent event."""
        return f"id: {self.number}\nevent: message\ndata: {self.json}\n\n".encode()


# ---- Writing ----


def store(session: Session, me: Caller, body: ChatMessageCreate, now: datetime) -> tuple[ChatMessagePublic, bool]:
    """The stored message, and whether it is new. A repeated client_message_id returns the message stored first."""
    first = _find_sent(session, me.user_id, body)
    if first is None:
        number = _next_number(session, body.room, now)
        values = {**dict(body), "number": number, "author_id": me.user_id, "created_at": now}
        insert = dialect_insert(session, ChatMessage).on_conflict_do_nothing()
        new_id = session.connection().execute(insert.returning(col(ChatMessage.id)), values).scalar_one_or_none()
        if new_id is not None:
            return ChatMessagePublic(id=new_id, author=me.session.name, **values), True
        first = _find_sent(session, me.user_id, body)  # a concurrent request won; the number remains unused
    return found(first, Conflict), False


def _find_sent(session: Session, author_id: UUID, body: ChatMessageCreate) -> ChatMessagePublic | None:
    """The message that the author has stored with this client_message_id."""
    if body.client_message_id is None:
        return None
    values = {"author_id": author_id, "client_message_id": body.client_message_id}
    row = session.connection().execute(_SENT, values).mappings().first()
    if row is None:
        return None
    if (row["room"], row["text"]) != (body.room, body.text):
        raise IdempotencyKeyReused(_REUSED)
    return ChatMessagePublic(**row)


def _next_number(session: Session, room: str, now: datetime) -> int:
    """Take the next number. The room's row, which the first message inserts, is locked until the transaction ends."""
    first = dialect_insert(session, ChatRoom).values(name=room, last_number=1, last_message_at=now)
    following = {"last_number": col(ChatRoom.last_number) + 1, "last_message_at": now}
    upsert = first.on_conflict_do_update(index_elements=["name"], set_=following)
    return int(session.connection().execute(upsert.returning(col(ChatRoom.last_number))).scalar_one())


# ---- Reading ----


def read_messages(
    session: Session, room: str, *, limit: int, after: int | None = None, before: int | None = None
) -> list[Message]:
    """Read messages in ascending order: the first after a number, or else the latest, optionally before a number."""
    statement = _MESSAGES.where(col(ChatMessage.room) == room).limit(limit)
    if before is not None:
        statement = statement.where(col(ChatMessage.number) < before)
    if after is None:
        statement = statement.order_by(col(ChatMessage.number).desc())
    else:
        statement = statement.where(col(ChatMessage.number) > after).order_by(col(ChatMessage.number))
    rows = session.connection().execute(statement).mappings().all()
    return [Message.of(ChatMessagePublic(**row)) for row in (rows[::-1] if after is None else rows)]


def last_numbers(session: Session, rooms: Collection[str]) -> dict[str, int]:
    """The last number of each of these rooms that exists."""
    return dict(session.exec(select(ChatRoom.name, ChatRoom.last_number).where(col(ChatRoom.name).in_(rooms))).all())

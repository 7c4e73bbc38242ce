"""Chat: rooms, each with one sequence of numbers, and the messages in them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import pydantic
from pydantic import AfterValidator, StringConstraints, WithJsonSchema
from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel, UniqueConstraint

from app.models.base import MAX_ID, BigId, Body, utcnow

LOBBY = "lobby"
MAX_TEXT = 4096  # bytes


def _four_kib(value: str) -> str:
    if len(value.encode()) > MAX_TEXT:
        raise ValueError(f"it may have at most {MAX_TEXT} bytes in UTF-8")
    return value


# Lines and what else a person typed stay as they are, but for white space at the ends; PostgreSQL cannot store NUL.
Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT, pattern=r"^[^\x00]*$"),
    AfterValidator(_four_kib),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"}
    ),
]
RoomName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=50),
    pydantic.Field(examples=["lobby"]),
]
ClientId = Annotated[
    str,
    StringConstraints(pattern=r"^[!-~]{1,64}$"),
    pydantic.Field(examples=["0b0d7f5e-3c1f-4a52-9f0e-1a2b3c4d5e6f"]),
]
Number = Annotated[int, pydantic.Field(ge=0, le=MAX_ID, examples=[12])]


class ChatRoom(SQLModel, table=True):
    """`last_number` is raised in the transaction of each message, so numbers appear in the order of their commits."""

    __tablename__ = "chat_room"

    name: str = Field(primary_key=True, max_length=50)
    last_number: int = Field(sa_type=BigInteger)


class ChatMessageBase(SQLModel):
    text: Text = Field(max_length=MAX_TEXT, schema_extra={"examples": ["Hello"]})
    client_message_id: ClientId | None = Field(
        default=None, max_length=64, description="Yours: a message that is sent again with the same one stays one."
    )


class ChatMessage(ChatMessageBase, table=True):
    __tablename__ = "chat_message"
    __table_args__ = (UniqueConstraint("room", "number"), UniqueConstraint("author_id", "client_message_id"))

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    room: str = Field(max_length=50, foreign_key="chat_room.name")
    number: int = Field(sa_type=BigInteger)
    author_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    created_at: datetime = Field(default_factory=utcnow)


class ChatFrame(Body, ChatMessageBase):
    """What a socket takes; its room is that of the socket."""


class ChatMessageCreate(ChatFrame):
    room: RoomName = LOBBY


class ChatMessagePublic(SQLModel):
    id: int = Field(schema_extra={"examples": [7]})
    room: str = Field(schema_extra={"examples": [LOBBY]})
    number: int = Field(
        description="Rises within a room. Resume after the last one that you saw.", schema_extra={"examples": [12]}
    )
    author_id: UUID
    author: str | None = Field(description="The author's name.", schema_extra={"examples": ["Ada"]})
    text: str = Field(schema_extra={"examples": ["Hello"]})
    client_message_id: str | None = Field(schema_extra={"examples": ["0b0d7f5e-3c1f-4a52-9f0e-1a2b3c4d5e6f"]})
    created_at: datetime

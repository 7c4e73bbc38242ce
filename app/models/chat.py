"""Chat rooms, each with its own sequence of numbers, and their messages."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, StringConstraints
from sqlmodel import BigInteger, Field, SQLModel, UniqueConstraint, text

from app.models.base import MAX_ID, MAX_PAGE, BigId, Body, Id, described, utcnow
from app.models.types import UtcTime, lines

LOBBY = "lobby"
MAX_TEXT = 4096  # bytes


def _four_kib(value: str) -> str:
    if len(value.encode()) > MAX_TEXT:
        raise ValueError(f"this may have at most {MAX_TEXT} bytes in UTF-8")
    return value


Text = Annotated[str, *lines(MAX_TEXT, "Hello", f"At most {MAX_TEXT} bytes in UTF-8."), AfterValidator(_four_kib)]
_SLUG = StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=50)
RoomName = Annotated[str, _SLUG, described("A slug. A room exists once a message is written in it.", LOBBY)]
_SOME_ID = Field(schema_extra={"examples": ["0b0d7f5e-3c1f-4a52-9f0e-1a2b3c4d5e6f"]})
ClientMessageId = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,64}$"), _SOME_ID]
Number = Annotated[int, Field(ge=0, le=MAX_ID, schema_extra={"examples": [12]})]


# For rooms that the previous release adds without a time.
_SINCE_1970 = {"server_default": text("'1970-01-01 00:00:00.000000'")}


class ChatRoomBase(SQLModel):
    name: str = described("The name of the room.", LOBBY, primary_key=True, max_length=50)
    last_number: int = described("The number of its latest message.", 12, sa_type=BigInteger)
    last_message_at: UtcTime = Field(description="When its latest message was written.", sa_column_kwargs=_SINCE_1970)


class ChatRoom(ChatRoomBase, table=True):
    """A chat room. Each message increments `last_number` in its transaction, so numbers appear in commit order."""

    __tablename__ = "chat_room"


class ChatRoomPublic(ChatRoomBase):
    pass


_CLIENT_ID = "An id of your choice: a message sent again with the same id is stored once."


class ChatMessageBase(SQLModel):
    text: Text = Field(max_length=MAX_TEXT)
    client_message_id: ClientMessageId | None = Field(default=None, max_length=64, description=_CLIENT_ID)


class ChatMessage(ChatMessageBase, table=True):
    __tablename__ = "chat_message"
    __table_args__ = (UniqueConstraint("room", "number"), UniqueConstraint("author_id", "client_message_id"))

    id: int | None = Field(default=None, primary_key=True, sa_type=BigId)
    room: str = Field(max_length=50, foreign_key="chat_room.name")
    number: int = Field(sa_type=BigInteger)
    author_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    created_at: UtcTime = Field(default_factory=utcnow)


class ChatFrame(Body, ChatMessageBase):
    """A message as a socket sends it, to the room of the socket."""


class ChatMessageCreate(ChatFrame):
    room: RoomName = LOBBY


class ChatMessagePublic(SQLModel):
    id: Id
    room: str = described("The room's name.", LOBBY)
    number: int = described("Increases within a room. Resume after the last number that you received.", 12)
    author_id: UUID = Field(description="The account that wrote it.")
    author: str | None = described("The author's name.", "Ada")
    text: str = described("As it was written.", "Hello")
    client_message_id: str | None = described("The id that its author chose.", "0b0d7f5e-3c1f-4a52-9f0e-1a2b3c4d5e6f")
    created_at: UtcTime = Field(description="When it was written.")


class RoomQuery(SQLModel):
    """The query parameters that select a room, and the position to resume from."""

    room: RoomName = LOBBY
    after: Number | None = Field(default=None, description="Only messages with a higher number, the earliest first.")


class HistoryQuery(RoomQuery):
    """The query parameters that select a part of a room's history."""

    before: Number | None = Field(default=None, description="Only messages with a lower number: the latest of them.")
    limit: int = Field(default=50, ge=1, le=MAX_PAGE, description="The maximum number of rows.")
    wait: float = described("Seconds to wait for a message if there is none yet.", 25, default=0, ge=0, le=25)

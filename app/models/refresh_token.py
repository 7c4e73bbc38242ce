"""Sessions: one refresh_token row a device. Nothing in a row is a token, or becomes one without the server key."""

import re
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import MISSING
from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel

from app.models.base import utcnow, uuid7

_SYSTEMS = ("iPhone", "iPad", "Android", "Windows", "Mac OS X", "Linux")
_BROWSERS = (("Edg", "Edge"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"))
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")


class RefreshToken(SQLModel, table=True):
    """AUTH.md's row. generation is the newest token handed out, parent_generation the one it was handed out for."""

    __tablename__ = "refresh_token"
    __table_args__ = (Index(None, "user_id", "revoked_at"),)

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    user_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    client_id: str = Field(max_length=100)
    device: str = Field(max_length=100)
    ip: str = Field(max_length=45)
    user_agent: str = Field(max_length=255)
    scope: str | None = Field(default=None, max_length=1000)
    secret: bytes
    auth_epoch: int
    generation: int = Field(default=1, sa_type=BigInteger)
    parent_generation: int = Field(default=0, sa_type=BigInteger)
    confirmed: bool = False
    rotated_at: datetime
    created_at: datetime = Field(default_factory=utcnow)
    last_used_at: datetime
    idle_expires_at: datetime
    absolute_expires_at: datetime
    revoked_at: datetime | None = None
    revoke_reason: str | None = Field(default=None, max_length=50)


class SessionPublic(SQLModel):
    """A signed-in device, without anything that could sign in."""

    id: UUID
    client_id: str
    device: str
    ip: str
    user_agent: str
    scope: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    current: bool

    @classmethod
    def of(cls, row: RefreshToken, *, current: UUID | None) -> "SessionPublic":
        expires_at = min(row.idle_expires_at, row.absolute_expires_at)
        return cls.model_validate(row, update={"expires_at": expires_at, "current": row.id == current})


class TokenPair(SQLModel):
    """A successful answer of the token endpoint (RFC 6749 section 5.1). expires_in is in seconds."""

    access_token: str
    token_type: str = Field(default="Bearer")
    expires_in: int
    scope: str
    refresh_token: str


class Introspection(SQLModel):
    """An answer of RFC 7662 section 2.2, times in seconds since 1970. A token that is not live has `active` alone."""

    active: bool
    scope: str | MISSING = MISSING
    client_id: str | MISSING = MISSING
    token_type: Literal["Bearer", "refresh_token"] | MISSING = MISSING
    exp: int | MISSING = MISSING
    iat: int | MISSING = MISSING
    nbf: int | MISSING = MISSING
    sub: UUID | MISSING = MISSING
    aud: str | MISSING = MISSING
    iss: str | MISSING = MISSING
    jti: str | MISSING = MISSING
    sid: UUID | MISSING = MISSING


def printable(text: str, length: int) -> str:
    """`text` on one line, at most `length` characters: fit for a row, a page and a log line."""
    return _UNPRINTABLE.sub("", text).strip()[:length]


def device_label(user_agent: str) -> str:
    """A name a person recognises, such as "Chrome on Android" or "okhttp"."""
    system = next((name for name in _SYSTEMS if name in user_agent), None)
    browser = next((label for mark, label in _BROWSERS if f"{mark}/" in user_agent), None)
    if browser and system:
        return f"{browser} on {system}"
    return printable(user_agent.partition("/")[0], 100) or "unknown device"

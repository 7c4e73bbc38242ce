"""Sessions: one refresh_token row per signed-in device, the rules of rotation, and the schemas of the API.

A row contains no token, and none can be derived from it without the server key
(docs/decisions/0003-derived-refresh-tokens.md).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import MISSING, AfterValidator
from sqlmodel import BigInteger, Field, Index, Relationship, SQLModel

from app.core.settings import get_settings
from app.models.base import NEVER_LAZY, OPAQUE_EXAMPLE, Body, described, uuid7
from app.models.types import UtcTime, line
from app.models.user import User

# The authorization server's answer to a verified refresh token, by the token's generation:
# - rotate: the newest token. Issue its successor.
# - repeat: its parent, within the grace. This is a retry or a second process, which gets the same successor.
# - replace: its parent, and nobody has used the successor. That response was lost.
# - reuse: any other token. It has been superseded, so two parties hold this session.
RotationAction = Literal["rotate", "repeat", "replace", "reuse"]

# A URL, an address, or a name that mail programs turn into a link.
_LINK = re.compile(r"\S*(?://|@|[.\u3002\uff0e\uff61](?=[^\W\d_]{2}))\S*")


def without_links(label: str) -> str:
    """A device's label as it may be quoted in mail."""
    return _LINK.sub("", label).strip()


def _label(name: str) -> str:
    if not (label := without_links(name)):
        raise ValueError("use a name that is not a link")
    return label


MAX_LABEL, MAX_USER_AGENT = 100, 255  # characters: of a client_id or a device's name, and of a User-Agent
_CLIENT_ID = "The app's id or, with the password grant, the label that the client sent."
NEVER = datetime.max.replace(tzinfo=UTC)


class SessionBase(SQLModel):
    client_id: str = described(_CLIENT_ID, "app", max_length=MAX_LABEL)
    device: str = described("The device's name.", "Ada's phone", max_length=MAX_LABEL)
    ip: str = described("The IP address that the device signed in from.", "192.0.2.7", max_length=45)
    user_agent: str = described(
        "The User-Agent header at sign-in.", "Muster/1.0 (iPhone; iOS 20)", max_length=MAX_USER_AGENT
    )
    scope: str | None = described("null: all scopes of the role.", "me operations:read", max_length=1000)
    created_at: UtcTime = Field(description="When the device signed in.")
    last_used_at: UtcTime = Field(description="When it was last used; for a browser, to within a day.")


class RefreshToken(SessionBase, table=True):
    """A session on one device. `generation` numbers the newest token issued, `parent_generation` the one before it,
    for which it was issued.

    Generation 0 is an authorization code: the session is no device until the code is redeemed.
    """

    __tablename__ = "refresh_token"
    __table_args__ = (Index(None, "user_id", "revoked_at"),)

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    user_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE")
    secret: bytes
    auth_epoch: int
    generation: int = Field(default=1, sa_type=BigInteger)
    parent_generation: int = Field(default=0, sa_type=BigInteger)
    confirmed: bool = False
    rotated_at: UtcTime
    idle_expires_at: UtcTime
    absolute_expires_at: UtcTime
    revoked_at: UtcTime | None = None
    revoke_reason: str | None = Field(default=None, max_length=50)

    # For a session that began with an authorization code: the code's binding (RFC 7636 section 4.4, RFC 6749 section
    # 4.1.3), and when the person signed in to the browser.
    code_challenge: str | None = Field(default=None, max_length=43)
    redirect_uri: str | None = Field(default=None, max_length=500)
    authenticated_at: UtcTime | None = None

    user: User = Relationship(sa_relationship_kwargs=NEVER_LAZY)

    @property
    def expires_at(self) -> datetime:
        return min(self.idle_expires_at, self.absolute_expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A user and their role, as authentication reads them. Each field is a column (app/oauth2/refresh_tokens.py)."""

    user_id: UUID
    email: str
    name: str | None
    is_active: bool
    is_verified: bool
    has_password: bool
    user_epoch: int
    user_created_at: datetime
    operations_revision: int
    role: str
    role_scopes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot(Principal):
    """A RefreshToken with its user and role, as one query read them, and the rules that need nothing else.

    The defaults are those of an external identity in place of a session: it is never rotated, revoked or expired here.
    """

    id: UUID
    client_id: str = ""
    device: str = ""
    scope: str | None = None
    secret: bytes = b""
    auth_epoch: int
    generation: int = 0
    parent_generation: int = 0
    confirmed: bool = True
    rotated_at: datetime
    authenticated_at: datetime
    idle_expires_at: datetime = NEVER
    absolute_expires_at: datetime = NEVER
    revoked_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether its tokens are accepted."""
        is_expired = now >= min(self.idle_expires_at, self.absolute_expires_at)
        is_revoked = self.revoked_at is not None or self.auth_epoch != self.user_epoch
        return self.is_active and not (is_expired or is_revoked or self.is_suspended)

    @property
    def is_suspended(self) -> bool:
        """Accounts with a password are suspended while LOCAL_ACCOUNTS is off."""
        return self.has_password and get_settings().local_accounts == "off"

    def scopes(self) -> frozenset[str]:
        """The scopes in force: the session's own, as far as the role still has them."""
        role_scopes = frozenset(self.role_scopes)
        return role_scopes if self.scope is None else role_scopes.intersection(self.scope.split())

    def rotation_action(self, presented: int, *, arrived: datetime, grace: timedelta) -> RotationAction:
        """The rotation table of decision 3, first row that fits; `presented` is the generation of the token presented.

        A generation ahead of the row's, with a good MAC, means that the database was restored from a backup.
        """
        is_parent = presented == self.parent_generation
        if presented >= self.generation:
            return "rotate"
        if is_parent and arrived - self.rotated_at <= grace:
            return "repeat"
        if is_parent and not self.confirmed:
            return "replace"
        return "reuse"

    def is_superseded(self, generation: int) -> bool:
        """Whether this generation was issued in a response that was later replaced: its use means two holders."""
        return self.parent_generation < generation < self.generation

    def is_unconfirmed(self, generation: int) -> bool:
        """Whether nobody has used this generation, the newest one, yet."""
        return generation == self.generation and not self.confirmed


class SessionPublic(SessionBase):
    """A signed-in device, as its owner sees it."""

    id: UUID = Field(description="Its id, to sign the device out.")
    expires_at: UtcTime = Field(description="When it ends unless it is used before.")
    current: bool = Field(description="Whether it is the session of this request.")

    @classmethod
    def of(cls, row: RefreshToken, *, current: UUID | None) -> "SessionPublic":
        return cls.model_validate(row, update={"current": row.id == current})


class SessionUpdate(Body):
    """The new name of a device, without what a mail program would take for a link."""

    device: Annotated[str, *line(MAX_LABEL, "Ada's phone", "The device's name."), AfterValidator(_label)]


class TokenPair(SQLModel):
    """A successful response of the token endpoint (RFC 6749 section 5.1)."""

    access_token: str = described("Send it as `Authorization: Bearer …`.", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl")
    token_type: str = described("Always Bearer.", "Bearer", default="Bearer")
    expires_in: int = described("Seconds until the access token expires.", 600)
    scope: str = described("The scopes of the access token, separated by spaces.", "me operations:read")
    refresh_token: str = described("Returns the next pair. Store it before you use it.", OPAQUE_EXAMPLE)


class Introspection(SQLModel):
    """A response of RFC 7662 section 2.2, times in seconds since 1970. A token that is not live has `active` alone."""

    active: bool = Field(description="Whether the token is accepted.")
    scope: str | MISSING = described("The scopes, separated by spaces.", "me operations:read", default=MISSING)
    client_id: str | MISSING = described(_CLIENT_ID, "app", default=MISSING)
    token_type: Literal["Bearer"] | MISSING = described("Always Bearer.", "Bearer", default=MISSING)
    exp: int | MISSING = described("When it expires.", 1795500600, default=MISSING)
    iat: int | MISSING = described("When it was issued.", 1795500000, default=MISSING)
    nbf: int | MISSING = described("When it becomes valid.", 1795500000, default=MISSING)
    sub: UUID | MISSING = described("The account.", "01935b0e-7c1a-7000-8000-0123456789ab", default=MISSING)
    aud: str | MISSING = described("The service that it is for.", "muster", default=MISSING)
    iss: str | MISSING = described("The service that issued it.", "https://muster.example.com", default=MISSING)
    jti: str | MISSING = described("The token's id.", "Zm9yIG9uZSB0b2tlbg", default=MISSING)
    sid: UUID | MISSING = described("The session.", "01935b0e-7c1a-7000-8000-0123456789ab", default=MISSING)

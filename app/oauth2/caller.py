"""The clients of the authorization server: a device that signs in, a browser's cookie, and an authenticated caller."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from app.models.refresh_token import SessionSnapshot
from app.oauth2.access_tokens import AccessClaims

_DAY = 24 * 60 * 60  # seconds


@dataclass(frozen=True, slots=True)
class Device:
    """The client that signs in, described for the account's owner; nothing here authenticates it."""

    client_id: str
    device: str
    ip: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """A person who has signed in, on a device, with a scope (None: all of the role's, also those added later).

    `auth_epoch` was read together with the verified password. `method` is that of the audit log; None: not a sign-in,
    but a session in place of another one.
    """

    user_id: UUID
    auth_epoch: int
    device: Device
    scope: str | None = None
    method: Literal["password", "cookie", "provider"] | None = "password"


@dataclass(frozen=True, slots=True)
class CodeBinding:
    """The values that an authorization code is bound to: its client must present all of them (RFC 7636 section 4.6)."""

    client_id: str
    redirect_uri: str
    code_challenge: str


@dataclass(frozen=True, slots=True)
class BrowserCookie:
    """An access token for a cookie, and its lifetime in seconds."""

    token: str
    max_age: int


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated request: its session, and the scopes in force (those of the claim, the session and the role)."""

    session: SessionSnapshot
    claims: AccessClaims
    scopes: frozenset[str]

    @property
    def user_id(self) -> UUID:
        return self.session.user_id

    @property
    def session_id(self) -> UUID:
        return self.session.id

    @property
    def needs_confirmation(self) -> bool:
        """Whether `confirm_use` has something to write."""
        generation = self.claims.generation
        return self.session.is_unconfirmed(generation) or self.session.is_superseded(generation)

    def is_cookie_renewal_due(self, now: datetime) -> bool:
        """Whether a cookie's token is a day old, or in the second half of its life while a new one could live longer.

        The renewal records that the session was used: its owner sees in the list of sessions if it was not them.
        """
        claims = self.claims
        if not claims.in_cookie:
            return False
        age, half = now.timestamp() - claims.issued_at, (claims.expires_at - claims.issued_at) / 2
        may_live_longer = claims.expires_at < int(self.session.absolute_expires_at.timestamp())
        return age >= _DAY or (age >= half and may_live_longer)

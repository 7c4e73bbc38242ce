"""The authorization server: RFC 6749 (tokens), RFC 6750 (bearer use), RFC 7009 (revocation), by hand and without HTTP.

A session is one refresh_token row. Its tokens are derived, not stored: generation g is the newest one, p its parent.
docs/decisions/0003-derived-refresh-tokens.md walks through the attacks; tests/test_rotation_model.py plays them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlmodel import Session, col

from app.core import metrics
from app.core.crypto import SignedToken, new_secret, parse_signed
from app.core.errors import InvalidGrant, InvalidScope, InvalidToken
from app.core.logs import security_event
from app.core.scopes import in_order
from app.models.refresh_token import RefreshToken, TokenPair
from app.oauth2.access_tokens import AccessClaims, InvalidAccessToken, Signers, new_token_id
from app.oauth2.refresh_tokens import (
    Move,
    SessionSnapshot,
    is_superseded,
    is_unconfirmed,
    next_move,
    read_state,
    revoke_sessions,
    swap,
)
from app.oauth2.requests import parse_scope


@dataclass(frozen=True, slots=True)
class Device:
    """What is kept of the client that signs in: labels for its owner, nothing to authenticate by."""

    client_id: str
    device: str
    ip: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class BrowserCookie:
    """An access token for a cookie, and for how many seconds it is good."""

    token: str
    max_age: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the session's state, and the scopes in force (those of the claim, the session and the role)."""

    session: SessionSnapshot
    claims: AccessClaims
    scopes: frozenset[str]

    @property
    def user_id(self) -> UUID:
        return self.session.user_id

    @property
    def session_id(self) -> UUID:
        return self.session.id


class AuthorizationServer:
    """Grants, refreshes, checks and revokes. Each method takes a session and the time; only reuse commits by itself."""

    def __init__(
        self,
        signers: Signers,
        *,
        access_ttl: timedelta,
        idle_ttl: timedelta,
        absolute_ttl: timedelta,
        grace: timedelta,
        on_reuse: Callable[[Session, SessionSnapshot], None],
    ) -> None:
        self._signers = signers
        self._access_ttl = access_ttl
        self._idle_ttl = idle_ttl
        self._absolute_ttl = absolute_ttl
        self.grace = grace
        self.issuer = signers.access.issuer
        self._on_reuse = on_reuse

    # ---- The grants: RFC 6749 sections 4.3 and 6 ----

    def start_session(
        self,
        session: Session,
        *,
        user_id: UUID,
        auth_epoch: int,
        device: Device,
        scope: str | None,
        now: datetime,
    ) -> TokenPair:
        """A new row and its first pair. `auth_epoch` is what was read beside the verified password: had the password
        changed since, the new session is born dead."""
        row = RefreshToken(
            user_id=user_id,
            client_id=device.client_id,
            device=device.device,
            ip=device.ip,
            user_agent=device.user_agent,
            scope=scope,
            secret=new_secret(),
            auth_epoch=auth_epoch,
            rotated_at=now,
            created_at=now,
            last_used_at=now,
            idle_expires_at=now + min(self._idle_ttl, self._absolute_ttl),
            absolute_expires_at=now + self._absolute_ttl,
        )
        session.add(row)
        session.flush()
        security_event("new session", user_id=user_id, session_id=row.id)
        state = read_state(session, row.id)
        if state is None or not state.is_live(now):
            raise InvalidGrant
        return self._pair(state, state.generation, self._granted(state, state.scopes()), now)

    def start_cookie_session(self, session: Session, **new: Any) -> BrowserCookie:
        """The same for a browser. Nobody is given the pair: its refresh token is derived when it is asked for."""
        pair = self.start_session(session, **new)
        return self.renew_cookie(session, self.authenticate(session, pair.access_token, new["now"]), new["now"])

    def renew_cookie(self, session: Session, caller: Caller, now: datetime) -> BrowserCookie:
        """Move the idle limit, never past the absolute one, and mint an access token that ends with it."""
        state = caller.session
        idle = min(now + self._idle_ttl, state.absolute_expires_at)
        while not swap(session, state, idle_expires_at=idle, last_used_at=now):
            state = self._of_claims(session, caller.claims, now)
        claims = self._claims(state, caller.claims.generation, state.scopes(), now, idle)
        token = self._signers.access.mint(replace(claims, in_cookie=True))
        return BrowserCookie(token, claims.expires_at - claims.issued_at)

    def refresh(
        self,
        session: Session,
        token: str,
        *,
        client_id: str | None,
        scope: str | None,
        arrived: datetime,
        now: datetime,
    ) -> TokenPair:
        """RFC 6749 section 6 with the rotation of RFC 9700 section 4.14.2. `arrived` is when the request was
        complete, before it waited for a slot: the grace is measured by that."""
        presented = parse_signed(token)
        if presented is None:
            raise InvalidGrant
        while True:
            state = self.genuine(session, presented)
            if (client_id and client_id != state.client_id) or not state.is_live(now):
                raise InvalidGrant
            granted = self._narrowed(state, scope)
            match next_move(presented.number, state, arrived=arrived, grace=self.grace):
                case Move.REPEAT:
                    return self._pair(state, state.generation, granted, now)
                case Move.ROTATE:
                    generation = presented.number + 1
                    idle = min(now + self._idle_ttl, state.absolute_expires_at)
                    changes = {"parent_generation": presented.number, "idle_expires_at": idle}
                case Move.REPLACE:
                    generation = state.generation + 1
                    changes = {}
                case Move.THEFT:
                    if self._revoke_for_reuse(session, state, now):
                        raise InvalidGrant
                    continue
            times = {"rotated_at": now, "last_used_at": now}
            if swap(session, state, generation=generation, confirmed=False, **times, **changes):
                metrics.count("rotations" if changes else "lost_answers")
                return self._pair(state, generation, granted, now)

    # ---- Bearer use: RFC 6750 section 3, RFC 9068 section 4 ----

    def authenticate(self, session: Session, token: str, now: datetime) -> Caller:
        """The caller, from one query. Follow it with `settle` if `is_unsettled(caller)`."""
        try:
            claims = self._signers.access.verify(token, now)
        except InvalidAccessToken:
            raise InvalidToken from None
        state = self._of_claims(session, claims, now)
        return Caller(state, claims, state.scopes() & claims.scope)

    def settle(self, session: Session, caller: Caller, now: datetime) -> None:
        """Write and commit what this use of an access token shows: its generation arrived, or two people have it."""
        while True:
            state = self._of_claims(session, caller.claims, now)
            if is_superseded(caller.claims.generation, state):
                if self._revoke_for_reuse(session, state, now):
                    raise InvalidToken
            elif not is_unconfirmed(caller.claims.generation, state):
                return
            elif swap(session, state, confirmed=True):
                session.commit()
                return

    # ---- Revocation: RFC 7009 section 2 ----

    def revoke(self, session: Session, token: str, now: datetime) -> None:
        """End the session of any refresh token, however old, or access token, even expired. Unknown ones are fine."""
        session_id = self._session_of(session, token)
        if session_id is not None:
            revoke_sessions(session, col(RefreshToken.id) == session_id, reason="signed-out", now=now)

    def _session_of(self, session: Session, token: str) -> UUID | None:
        presented = parse_signed(token)
        try:
            if presented is not None:
                return self.genuine(session, presented).id
            return self._signers.access.verify(token, None).session_id
        except (InvalidGrant, InvalidAccessToken):
            return None

    # ---- The parts ----

    def genuine(self, session: Session, presented: SignedToken) -> SessionSnapshot:
        """The row of a refresh token whose MAC holds. A forged token is not a stolen one: nothing is revoked."""
        state = read_state(session, presented.id)
        if state is None or not self._signers.refresh.verify(presented, state.secret):
            raise InvalidGrant
        return state

    def _of_claims(self, session: Session, claims: AccessClaims, now: datetime) -> SessionSnapshot:
        state = read_state(session, claims.session_id)
        if state is None or state.user_id != claims.subject or not state.is_live(now):
            raise InvalidToken
        return state

    def _narrowed(self, state: SessionSnapshot, scope: str | None) -> frozenset[str]:
        """A refresh may ask for less than the session has (RFC 6749 section 6), and gets what the role still allows."""
        if scope is None:
            return self._granted(state, state.scopes())
        asked = parse_scope(scope)
        if not asked <= frozenset(state.role_scopes if state.scope is None else state.scope.split()):
            raise InvalidScope
        return self._granted(state, asked & state.scopes())

    @staticmethod
    def _granted(state: SessionSnapshot, scopes: frozenset[str]) -> frozenset[str]:
        if not scopes:
            raise InvalidScope(f"The role {state.role} allows none of these scopes.")
        return scopes

    def _pair(self, state: SessionSnapshot, generation: int, scopes: frozenset[str], now: datetime) -> TokenPair:
        expires_at = min(now + self._access_ttl, state.absolute_expires_at)
        claims = self._claims(state, generation, scopes, now, expires_at)
        return TokenPair(
            access_token=self._signers.access.mint(claims),
            token_type="Bearer",  # noqa: S106  # RFC 6750's token type, not a password
            expires_in=claims.expires_at - claims.issued_at,
            scope=" ".join(in_order(scopes)),
            refresh_token=self._signers.refresh.sign(state.id, generation, state.secret),
        )

    @staticmethod
    def _claims(
        state: SessionSnapshot, generation: int, scopes: frozenset[str], now: datetime, expires_at: datetime
    ) -> AccessClaims:
        return AccessClaims(
            subject=state.user_id,
            session_id=state.id,
            generation=generation,
            client_id=state.client_id,
            scope=scopes,
            auth_time=int(state.created_at.timestamp()),
            issued_at=int(now.timestamp()),
            expires_at=int(expires_at.timestamp()),
            not_before=int(now.timestamp()),
            token_id=new_token_id(),
        )

    def _revoke_for_reuse(self, session: Session, state: SessionSnapshot, now: datetime) -> bool:
        """End this one session for good: committed here, because the error that follows rolls everything back."""
        if not swap(session, state, revoked_at=now, revoke_reason="reuse"):
            return False
        self._on_reuse(session, state)
        session.commit()
        metrics.count("thefts")
        security_event("refresh token reuse, session revoked", session_id=state.id, user_id=state.user_id)
        return True


def is_unsettled(caller: Caller) -> bool:
    """Whether `settle` has something to write."""
    generation, state = caller.claims.generation, caller.session
    return is_unconfirmed(generation, state) or is_superseded(generation, state)


def is_cookie_due(caller: Caller, now: datetime) -> bool:
    """Whether a cookie's token is in its second half, and could live longer than it does."""
    claims, end = caller.claims, int(caller.session.absolute_expires_at.timestamp())
    half_time = (claims.issued_at + claims.expires_at) / 2
    return claims.in_cookie and claims.expires_at < end and now.timestamp() >= half_time

"""The resource server's part of OAuth2: the caller behind an access token (RFC 6750, RFC 9068), without HTTP."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel import Session

from app.core import metrics
from app.core.errors import InsufficientScope, InvalidToken
from app.core.settings import Settings
from app.models.audit import record
from app.models.refresh_token import SessionSnapshot
from app.oauth2.access_tokens import AccessClaims, Signers
from app.oauth2.refresh_tokens import compare_and_swap, read_session


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated request: its session, and the scopes in force (those that claim, session and role all have)."""

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
        return self.session.is_unconfirmed(self.claims.generation) or self.session.is_superseded(self.claims.generation)

    def require(self, scopes: Iterable[str]) -> None:
        """Raise InsufficientScope for a scope that is not in force."""
        for scope in scopes:
            if scope not in self.scopes:
                raise InsufficientScope(scope)

    def is_cookie_renewal_due(self, now: datetime) -> bool:
        """Whether a cookie's token is a day old, or in the second half of its life while a new one could live longer.

        Renewing also updates `last_used_at`, so the owner can spot a use in the list of sessions that was not theirs.
        """
        claims = self.claims
        if not claims.in_cookie:
            return False
        age, half = now.timestamp() - claims.issued_at, (claims.expires_at - claims.issued_at) / 2
        may_live_longer = claims.expires_at < int(self.session.absolute_expires_at.timestamp())
        return age >= 24 * 60 * 60 or (age >= half and may_live_longer)


class ResourceServer:
    """Verifies access tokens. When two parties hold a session's token, the session is revoked and `alert` notifies its
    owner. Methods take a database session and, if a rule depends on it, the time. Only `confirm_use` and this
    revocation commit."""

    def __init__(self, settings: Settings, signers: Signers, alert: Callable[[Session, SessionSnapshot], None]) -> None:
        self._settings, self._signers, self._alert = settings, signers, alert

    def caller(self, claims: AccessClaims, snapshot: SessionSnapshot | None, now: datetime) -> Caller:
        """The caller with a verified access token, given the session that it names. Call `confirm_use` next if
        `caller.needs_confirmation`."""
        if snapshot is None or snapshot.user_id != claims.subject or not snapshot.is_live(now):
            raise InvalidToken
        return Caller(snapshot, claims, snapshot.scopes().intersection(claims.scope.split()))

    def confirm_use(self, session: Session, caller: Caller, now: datetime) -> None:
        """Commit that the client has received this generation. If it is superseded, two parties hold the session, which
        is revoked."""
        while True:
            snapshot = self._read_caller(session, caller.claims, now).session
            if snapshot.is_superseded(caller.claims.generation):
                if self._revoke_for_reuse(session, snapshot, now):
                    raise InvalidToken
            elif not snapshot.is_unconfirmed(caller.claims.generation):
                return
            elif compare_and_swap(session, snapshot, confirmed=True):
                session.commit()
                return

    def _read_caller(self, session: Session, claims: AccessClaims, now: datetime) -> Caller:
        return self.caller(claims, read_session(session, claims.session_id), now)

    def _revoke_for_reuse(self, session: Session, snapshot: SessionSnapshot, now: datetime) -> bool:
        """Revoke this one session, and commit: the error that follows would roll the revocation back. False if the
        session has changed since it was read."""
        if not compare_and_swap(session, snapshot, revoked_at=now, revoke_reason="reuse"):
            return False
        self._alert(session, snapshot)
        record(session, "token-reused", user_id=snapshot.user_id, session_id=snapshot.id)
        session.commit()
        metrics.count("thefts")
        return True

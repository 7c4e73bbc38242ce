"""The authorization server: RFC 6749 (tokens), RFC 7009 (revocation) and RFC 7662 (introspection), without HTTP.

A session is one refresh_token row. Its tokens are derived, not stored: `generation` numbers the newest one, and
`parent_generation` the one before it.
docs/decisions/0003-derived-refresh-tokens.md has the rotation table and walks through the attacks.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from secrets import token_urlsafe

from sqlmodel import Session, col

from app.core import metrics
from app.core.crypto import SignedToken, parse_signed
from app.core.errors import InvalidToken, found
from app.core.oauth_errors import InvalidGrant, UnsupportedGrantType
from app.core.scopes import in_order
from app.models.audit import record
from app.models.oauth_client import OAuthClient
from app.models.refresh_token import Introspection, RefreshToken, RotationAction, SessionSnapshot, TokenPair
from app.oauth2.access_tokens import AccessClaims
from app.oauth2.refresh_tokens import SignIn, compare_and_swap, insert_session, read_session, revoke_sessions
from app.oauth2.requests import AuthorizationRequest, CodeBinding, RotationRequest, scope_of_pair
from app.oauth2.resource_server import Caller, ResourceServer

CODE_TTL = timedelta(seconds=60)


class AuthorizationServer(ResourceServer):
    """Issues, refreshes and revokes tokens, besides verifying them."""

    # ---- The grants: RFC 6749 sections 4.1, 4.3 and 6 ----

    def start_session(self, session: Session, sign_in: SignIn, now: datetime) -> TokenPair:
        """Insert a session and return its first token pair.

        If the password has changed since it was verified, the session is not live and the grant is invalid.
        """
        absolute = now + self._settings.refresh_absolute_ttl
        idle = self._idle_limit(now, absolute)
        row = insert_session(session, sign_in, now, idle_expires_at=idle, absolute_expires_at=absolute)
        if sign_in.method:
            record(session, "sign-in", user_id=row.user_id, session_id=row.id, by_owner=True, method=sign_in.method)
        snapshot = read_session(session, row.id)
        if snapshot is None or not snapshot.is_live(now):
            raise InvalidGrant
        return self._pair(snapshot, scope_of_pair(snapshot, None), now, in_cookie=sign_in.in_cookie)

    def renew_cookie(self, session: Session, caller: Caller, now: datetime) -> TokenPair:
        """Extend the idle limit, never past the absolute one, and mint an access token that expires with it."""
        snapshot = caller.session
        idle = self._idle_limit(now, snapshot.absolute_expires_at)
        while not compare_and_swap(session, snapshot, idle_expires_at=idle, last_used_at=now):
            snapshot = self._read_caller(session, caller.claims, now).session
        snapshot = replace(snapshot, generation=caller.claims.generation)  # the cookie's, which is not rotated
        return self._pair(snapshot, snapshot.scopes(), now, in_cookie=True)

    def issue_code(self, session: Session, sign_in: SignIn, request: AuthorizationRequest, now: datetime) -> str:
        """An authorization code (RFC 6749 section 4.1.2): the token of generation 0, with which a session begins."""
        expiry = {"idle_expires_at": now + CODE_TTL, "absolute_expires_at": now + self._settings.refresh_absolute_ttl}
        binding = {name: request.parameters[name] for name in ("redirect_uri", "code_challenge")}
        row = insert_session(session, sign_in, now, generation=0, **expiry, **binding)
        return self._signers.code.sign(row.id, 0, row.secret)

    def redeem(self, session: Session, rotation: RotationRequest, binding: CodeBinding, now: datetime) -> TokenPair:
        """Exchange a code (RFC 6749 section 4.1.3). This is the first rotation, from generation 0 to 1, so a client can
        repeat it if the response was lost.

        A valid code presented with the wrong binding was stolen: its session is revoked.
        """
        presented = found(parse_signed(rotation.token), InvalidGrant)
        row = found(session.get(RefreshToken, presented.id), InvalidGrant)
        # A refresh token, whose number is its generation from 1 on, or an expired code.
        if presented.number or row.created_at + CODE_TTL <= now:
            raise InvalidGrant
        if session.get(OAuthClient, row.client_id) is None:  # it was removed in the meantime
            raise InvalidGrant
        known = CodeBinding(row.client_id, row.redirect_uri or "", row.code_challenge or "")
        while binding != known:  # until the session is revoked, here or by another request
            snapshot = self._verified_session(session, presented)
            if not snapshot.is_live(now) or self._revoke_for_reuse(session, snapshot, now):
                raise InvalidGrant
        return self._rotate(session, presented, rotation, now)

    def refresh(self, session: Session, rotation: RotationRequest, now: datetime) -> TokenPair:
        """Issue the next token pair (RFC 6749 section 6), by the rotation of RFC 9700 section 4.14.2."""
        presented = found(parse_signed(rotation.token), InvalidGrant)
        if presented.number == 0:  # a code
            raise InvalidGrant
        return self._rotate(session, presented, rotation, now)

    def _rotate(self, session: Session, presented: SignedToken, rotation: RotationRequest, now: datetime) -> TokenPair:
        """The successor of a verified code or refresh token, or the one issued already, if this is a retry."""
        while True:
            snapshot = self._verified_session(session, presented)
            if snapshot.is_suspended:
                raise UnsupportedGrantType  # the client keeps its token, which may be accepted again later
            if rotation.client_id not in {None, snapshot.client_id} or not snapshot.is_live(now):
                raise InvalidGrant
            granted, grace = scope_of_pair(snapshot, rotation.scope), self._settings.refresh_grace
            action = snapshot.rotation_action(presented.number, arrived=rotation.arrived, grace=grace)
            match action:
                case "repeat":
                    return self._pair(snapshot, granted, now, in_cookie=False)
                case "rotate":
                    generation = presented.number + 1
                    idle = self._idle_limit(now, snapshot.absolute_expires_at)
                    changes = {"parent_generation": presented.number, "idle_expires_at": idle}
                case "replace":
                    generation = snapshot.generation + 1
                    changes = {}
                case "reuse":
                    if self._revoke_for_reuse(session, snapshot, now):
                        raise InvalidGrant
                    continue
            times = {"rotated_at": now, "last_used_at": now}
            if compare_and_swap(session, snapshot, generation=generation, confirmed=False, **times, **changes):
                self._note_rotation(session, snapshot, action)
                return self._pair(replace(snapshot, generation=generation), granted, now, in_cookie=False)

    def _note_rotation(self, session: Session, before: SessionSnapshot, action: RotationAction) -> None:
        """Count the rotation. Redeeming a code is a sign-in, which the audit log has too."""
        if before.generation == 0:
            metrics.count("logins", result="ok")
            record(session, "sign-in", user_id=before.user_id, session_id=before.id, by_owner=True, method="code")
        else:
            metrics.count("rotations" if action == "rotate" else "lost_responses")

    # ---- Revocation: RFC 7009 section 2 ----

    def revoke(self, session: Session, token: str) -> None:
        """Revoke the session of a refresh token of any age, or of an access token, even an expired one.

        Unknown tokens are ignored.
        """
        try:
            if presented := parse_signed(token):
                snapshot = self._verified_session(session, presented)
                session_id, user_id = snapshot.id, snapshot.user_id
            else:
                claims = self._signers.access.verify(token, None)
                session_id, user_id = claims.session_id, claims.subject
        except (InvalidGrant, InvalidToken):
            return
        if revoke_sessions(session, col(RefreshToken.id) == session_id, reason="signed-out"):
            record(session, "sign-out", user_id=user_id, session_id=session_id, by_owner=True)

    # ---- Introspection: RFC 7662 section 2.2 ----

    def introspect(self, session: Session, token: str, now: datetime) -> Introspection:
        """Describe a live access token. Of any other token the response says only that it is not active.

        Introspection does not count as a use: nothing is confirmed, consumed or revoked.
        """
        try:
            claims = self._signers.access.verify(token, now)
            caller = self._read_caller(session, claims, now)
        except InvalidToken:
            return Introspection(active=False)
        # No clock skew here: whoever introspects a token relies on our clock.
        if caller.session.is_superseded(claims.generation) or claims.expires_at <= now.timestamp():
            return Introspection(active=False)
        described = {**self._signers.access.payload(claims), "nbf": claims.issued_at, "token_type": "Bearer"}
        return Introspection.model_validate({**described, "active": True, "scope": " ".join(in_order(caller.scopes))})

    # ---- The session of a token ----

    def _verified_session(self, session: Session, presented: SignedToken) -> SessionSnapshot:
        """The session of a code or refresh token whose MAC holds; else InvalidGrant. A forged one revokes nothing."""
        snapshot = read_session(session, presented.id)
        signer = self._signers.refresh if presented.number else self._signers.code
        if snapshot is None or not signer.verify(presented, snapshot.secret):
            raise InvalidGrant
        return snapshot

    # ---- Minting ----

    def _pair(self, snapshot: SessionSnapshot, scopes: frozenset[str], now: datetime, *, in_cookie: bool) -> TokenPair:
        """Mint the token pair of the snapshot's generation. Browsers get only the access token, in a cookie that lives
        as long as an idle session."""
        ttl = self._settings.refresh_idle_ttl if in_cookie else self._settings.access_token_ttl
        claims = AccessClaims(
            subject=snapshot.user_id,
            session_id=snapshot.id,
            generation=snapshot.generation,
            client_id=snapshot.client_id,
            scope=" ".join(in_order(scopes)),
            auth_time=int(snapshot.authenticated_at.timestamp()),
            issued_at=int(now.timestamp()),
            expires_at=int(min(now + ttl, snapshot.absolute_expires_at).timestamp()),
            token_id=token_urlsafe(12),
            in_cookie=in_cookie,
        )
        return TokenPair(
            access_token=self._signers.access.mint(claims),
            expires_in=claims.expires_at - claims.issued_at,
            scope=claims.scope,
            refresh_token=self._signers.refresh.sign(snapshot.id, snapshot.generation, snapshot.secret),
        )

    def _idle_limit(self, now: datetime, absolute_limit: datetime) -> datetime:
        return min(now + self._settings.refresh_idle_ttl, absolute_limit)

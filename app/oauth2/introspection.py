"""Introspection (RFC 7662 section 2.2): describes a live token. Any other token is reported as not active, no more.

Introspecting a token does not count as using it: nothing is confirmed, consumed or revoked.
"""

from datetime import datetime
from typing import Any

from pydantic import MISSING
from sqlmodel import Session

from app.core.crypto import parse_signed
from app.core.errors import InvalidToken
from app.core.oauth_errors import InvalidGrant
from app.core.scopes import in_order
from app.models.refresh_token import Introspection, RotationAction, SessionSnapshot
from app.oauth2.access_tokens import AUDIENCE
from app.oauth2.authorization_server import AuthorizationServer
from app.oauth2.caller import Caller


def introspect(session: Session, server: AuthorizationServer, token: str, now: datetime) -> Introspection:
    """The response for an access token or a refresh token."""
    presented = parse_signed(token)
    try:
        if presented is None:
            return _of_access(server, server.authenticate(session, token, now), now)
        return _of_refresh(server, server.verified_session(session, presented), presented.number, now)
    except (InvalidGrant, InvalidToken):
        return Introspection(active=False)


def _of_access(server: AuthorizationServer, caller: Caller, now: datetime) -> Introspection:
    """No clock skew here: whoever introspects a token relies on our clock."""
    claims = caller.claims
    if caller.session.is_superseded(claims.generation) or claims.expires_at <= now.timestamp():
        raise InvalidToken
    return Introspection(
        active=True,
        token_type="Bearer",  # noqa: S106  # RFC 6750's token type, not a password
        aud=AUDIENCE,
        exp=claims.expires_at,
        iat=claims.issued_at,
        nbf=claims.not_before,
        jti=claims.token_id,
        **_of_session(server, caller.session, caller.scopes),
    )


def _of_refresh(
    server: AuthorizationServer, snapshot: SessionSnapshot, generation: int, now: datetime
) -> Introspection:
    """Without an audience and with a type of its own, so that nobody takes it for a bearer token."""
    action = snapshot.rotation_action(generation, arrived=now, grace=server.grace)
    # Generation 0 is an authorization code, no refresh token.
    if not generation or not snapshot.is_live(now) or action is RotationAction.REUSE:
        raise InvalidGrant
    issued_at = int(snapshot.rotated_at.timestamp())
    return Introspection(
        active=True,
        token_type="refresh_token",  # noqa: S106  # its type, not a password
        exp=int(min(snapshot.idle_expires_at, snapshot.absolute_expires_at).timestamp()),
        iat=issued_at if action is RotationAction.ROTATE else MISSING,  # known for the newest token only
        jti=f"{snapshot.id}.{generation}",
        **_of_session(server, snapshot, snapshot.scopes()),
    )


def _of_session(server: AuthorizationServer, snapshot: SessionSnapshot, scopes: frozenset[str]) -> dict[str, Any]:
    return {
        "scope": " ".join(in_order(scopes)),
        "client_id": snapshot.client_id,
        "sub": snapshot.user_id,
        "iss": server.issuer,
        "sid": snapshot.id,
    }

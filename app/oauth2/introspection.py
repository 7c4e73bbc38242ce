"""Introspection (RFC 7662 section 2.2): what a live token is; of any other that it is not active.

To be asked about is no use of a token: nothing is confirmed, consumed or revoked.
"""

from datetime import datetime
from typing import Any

from pydantic import MISSING
from sqlmodel import Session

from app.core.crypto import parse_signed
from app.core.errors import InvalidGrant, InvalidToken
from app.core.scopes import in_order
from app.models.refresh_token import Introspection
from app.oauth2.access_tokens import AUDIENCE
from app.oauth2.authorization_server import AuthorizationServer, Caller
from app.oauth2.refresh_tokens import Move, SessionSnapshot, is_superseded, next_move


def introspect(session: Session, server: AuthorizationServer, token: str, now: datetime) -> Introspection:
    presented = parse_signed(token)
    try:
        if presented is None:
            return _of_access(server, server.authenticate(session, token, now), now)
        return _of_refresh(server, server.genuine(session, presented), presented.number, now)
    except (InvalidGrant, InvalidToken):
        return Introspection(active=False)


def _of_access(server: AuthorizationServer, caller: Caller, now: datetime) -> Introspection:
    """The skew is for clocks that differ: who asks us goes by ours."""
    claims = caller.claims
    if is_superseded(claims.generation, caller.session) or claims.expires_at <= now.timestamp():
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


def _of_refresh(server: AuthorizationServer, state: SessionSnapshot, generation: int, now: datetime) -> Introspection:
    """Without an audience, and of another type: it opens nothing, and nobody shall take it for a bearer token."""
    move = next_move(generation, state, arrived=now, grace=server.grace)
    if not state.is_live(now) or move is Move.THEFT:
        raise InvalidGrant
    return Introspection(
        active=True,
        token_type="refresh_token",  # noqa: S106  # what it is, not a password
        exp=int(min(state.idle_expires_at, state.absolute_expires_at).timestamp()),
        iat=int(state.rotated_at.timestamp()) if move is Move.ROTATE else MISSING,  # of an older one no row tells
        jti=f"{state.id}.{generation}",
        **_of_session(server, state, state.scopes()),
    )


def _of_session(server: AuthorizationServer, state: SessionSnapshot, scopes: frozenset[str]) -> dict[str, Any]:
    return {
        "scope": " ".join(in_order(scopes)),
        "client_id": state.client_id,
        "sub": state.user_id,
        "iss": server.issuer,
        "sid": state.id,
    }

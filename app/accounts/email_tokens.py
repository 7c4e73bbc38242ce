"""The tokens in mailed links: derived when the mail is written, never stored, valid once and for one hour.

Each is bound to the value that it changes (a password hash, an address), so that using it invalidates it.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlmodel import Session, col

from app.accounts.users import find_user
from app.core.crypto import SignedToken, TokenSigner, parse_signed
from app.core.errors import InvalidLink
from app.models.user import User
from app.oauth2.access_tokens import Signers, from_timestamp

LINK_TTL = timedelta(hours=1)


def reset_token(signers: Signers, user: User, now: datetime) -> str:
    """Invalid once the password or the address has changed."""
    return _sign(signers.reset, user.id, _reset_binding(user), now)


def verification_token(signers: Signers, user: User, now: datetime) -> str:
    """Invalid once the address has changed or is verified."""
    return _sign(signers.verification, user.id, user.email.encode(), now)


def email_change_token(signers: Signers, user: User, now: datetime) -> str:
    """Invalid once either address has changed."""
    return _sign(signers.email_change, user.id, _email_change_binding(user), now)


def _sign(signer: TokenSigner, user_id: UUID, binding: bytes, now: datetime) -> str:
    return signer.sign(user_id, int((now + LINK_TTL).timestamp()), binding)


def redeem_reset(session: Session, signers: Signers, token: str, now: datetime) -> User:
    """The account whose password this token resets, or InvalidLink."""
    presented, user = _presented(session, token, now)
    # An account without a password has none to reset, nor anything secret that the token would be bound to.
    if not user.is_active or user.password_hash is None or not signers.reset.verify(presented, _reset_binding(user)):
        raise InvalidLink
    return user


def redeem_verification(session: Session, signers: Signers, token: str, now: datetime) -> None:
    """Verify the address, or finish the change to a new one, which counts as verified; else InvalidLink."""
    presented, user = _presented(session, token, now)
    if user.new_email and signers.email_change.verify(presented, _email_change_binding(user)):
        unchanged = (col(User.email) == user.email, col(User.new_email) == user.new_email)
        values: dict[str, Any] = {"email": user.new_email, "new_email": None, "is_verified": True}
    elif not user.is_verified and signers.verification.verify(presented, user.email.encode()):
        unchanged = (col(User.email) == user.email, col(User.is_verified).is_(False))
        values = {"is_verified": True}
    else:
        raise InvalidLink
    statement = update(User).where(col(User.id) == user.id, *unchanged).values(**values)
    if session.exec(statement).rowcount != 1:
        raise InvalidLink


def _presented(session: Session, token: str, now: datetime) -> tuple[SignedToken, User]:
    """The parsed token and the account that it names, or InvalidLink. Its MAC is still to be verified."""
    presented = parse_signed(token)
    if presented is None or from_timestamp(presented.number) <= now:
        raise InvalidLink
    user = find_user(session, presented.id)
    if user is None:
        raise InvalidLink
    return presented, user


def _reset_binding(user: User) -> bytes:
    return f"{user.password_hash}\0{user.email}".encode()


def _email_change_binding(user: User) -> bytes:
    return f"{user.email}\0{user.new_email}".encode()

"""The tokens in mailed links: derived when the mail is made, never stored, single use, one hour.

Each hangs on what it changes (a password hash, an address), so that using it is what ends it.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import update
from sqlmodel import Session, col

from app.accounts.users import Credentials, credentials_by_id
from app.core.crypto import TokenSigner, parse_signed
from app.core.errors import InvalidLink
from app.models.user import User
from app.oauth2.access_tokens import Signers, from_timestamp

LINK_TTL = timedelta(hours=1)


def reset_token(signers: Signers, account: Credentials, now: datetime) -> str:
    """Dies with the password or the address it was made for."""
    return _link(signers.reset, account, _reset_bound(account), now)


def verification_token(signers: Signers, account: Credentials, now: datetime) -> str:
    """Dies with the address, or once the address is verified."""
    return _link(signers.verification, account, account.email.encode(), now)


def email_change_token(signers: Signers, account: Credentials, now: datetime) -> str:
    """Dies with either address."""
    return _link(signers.email_change, account, _email_change_bound(account), now)


def redeem_reset(session: Session, signers: Signers, token: str, now: datetime) -> Credentials:
    account = _account_of(session, token, now)
    # Without a password there is none to reset, nor anything secret that the token would be bound to.
    has_password = account.password_hash is not None
    if not account.is_active or not has_password or not _holds(signers.reset, token, _reset_bound(account)):
        raise InvalidLink
    return account


def redeem_verification(session: Session, signers: Signers, token: str, now: datetime) -> None:
    """Take a verification link or an e-mail change link; the change counts as verified."""
    account = _account_of(session, token, now)
    if account.new_email and _holds(signers.email_change, token, _email_change_bound(account)):
        unchanged = (col(User.email) == account.email) & (col(User.new_email) == account.new_email)
        values: dict[str, Any] = {"email": account.new_email, "new_email": None, "is_verified": True}
    elif not account.is_verified and _holds(signers.verification, token, account.email.encode()):
        unchanged = (col(User.email) == account.email) & col(User.is_verified).is_(False)
        values = {"is_verified": True}
    else:
        raise InvalidLink
    statement = update(User).where(col(User.id) == account.user_id, unchanged).values(**values)
    if session.connection().execute(statement).rowcount != 1:
        raise InvalidLink


def _link(signer: TokenSigner, account: Credentials, bound: bytes, now: datetime) -> str:
    return signer.sign(account.user_id, int((now + LINK_TTL).timestamp()), bound)


def _account_of(session: Session, token: str, now: datetime) -> Credentials:
    presented = parse_signed(token)
    if presented is None or from_timestamp(presented.number) <= now:
        raise InvalidLink
    account = credentials_by_id(session, presented.id)
    if account is None:
        raise InvalidLink
    return account


def _holds(signer: TokenSigner, token: str, bound: bytes) -> bool:
    presented = parse_signed(token)
    return presented is not None and signer.verify(presented, bound)


def _reset_bound(account: Credentials) -> bytes:
    return f"{account.password_hash}\0{account.email}".encode()


def _email_change_bound(account: Credentials) -> bytes:
    return f"{account.email}\0{account.new_email}".encode()

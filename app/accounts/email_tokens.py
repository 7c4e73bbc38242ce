"""The tokens in mailed links: derived when the mail is written, never stored, valid once and for one hour.

One rule for every kind: a token is invalidated by a newer one of its kind, and by any change to the ownership of the
account: to its password, address or epoch, or when it is disabled (docs/security-tests.md).
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel import Session

from app.accounts.users import find_user, lock_user
from app.core.crypto import TokenSigner, parse_signed
from app.core.errors import InvalidLink
from app.models.audit import EventName, record
from app.models.user import LinkKind, User
from app.oauth2.access_tokens import Signers, from_timestamp

LINK_TTL = timedelta(hours=1)


def make_link_token(signers: Signers, user: User, kind: LinkKind, now: datetime) -> str:
    """A new token, which invalidates the older ones of its kind once `user` is committed."""
    expires_at = int((now + LINK_TTL).timestamp())
    setattr(user, f"newest_{kind}", expires_at)
    return _signer(signers, kind).sign(user.id, expires_at, _binding(user, kind))


def redeem_reset(session: Session, signers: Signers, token: str, now: datetime) -> User:
    """The account whose password this token resets, or InvalidLink."""
    return _redeem(session, find_user, signers, token, now, "reset")[1]


def redeem_verification(session: Session, signers: Signers, token: str, now: datetime) -> tuple[User, str]:
    """Verify the address, or finish the change to a new one, which counts as verified; else InvalidLink.

    Returns the account and the address that it had.
    """
    kind, user = _redeem(session, lock_user, signers, token, now, "email_change", "verification")
    former = user.email
    if kind == "email_change" and user.new_email:
        user.email, user.new_email = user.new_email, None
    user.is_verified = True
    event: EventName = "email-changed" if user.email != former else "email-verified"
    record(session, event, user_id=user.id, actor_id=user.id)
    session.flush()
    return user, former


def _redeem(
    session: Session,
    find: Callable[[Session, UUID], User | None],
    signers: Signers,
    token: str,
    now: datetime,
    *kinds: LinkKind,
) -> tuple[LinkKind, User]:
    """The kind of a valid token and the account that it names, or InvalidLink."""
    presented = parse_signed(token)
    if presented is None or from_timestamp(presented.number) <= now:
        raise InvalidLink
    user = find(session, presented.id)
    for kind in kinds:
        if user is None or user.link_recipient(kind) is None or presented.number < getattr(user, f"newest_{kind}"):
            continue
        if _signer(signers, kind).verify(presented, _binding(user, kind)):
            return kind, user
    raise InvalidLink


def _signer(signers: Signers, kind: LinkKind) -> TokenSigner:
    signer: TokenSigner = getattr(signers, kind)
    return signer


def _binding(user: User, kind: LinkKind) -> bytes:
    recipient = user.link_recipient(kind)
    return f"{user.password_hash}\0{user.auth_epoch}\0{user.email}\0{recipient}".encode()

"""The tokens in mailed links: derived when the mail is written, never stored, valid once and for one hour.

One rule for every kind: a token is invalidated by a newer one of its kind, and by any change to the ownership of the
account: to its password, address or epoch, or when it is disabled (docs/security-tests.md).
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import get_args
from uuid import UUID

from sqlmodel import Session

from app.accounts.users import find_user, lock_user
from app.core.crypto import TokenSigner, parse_signed
from app.core.errors import AlreadyConfirmed, InvalidLink
from app.models.audit import EventName, record
from app.models.user import LinkKind, User
from app.oauth2.access_tokens import Signers, from_timestamp

LINK_TTL = timedelta(hours=1)
REMEMBERED_EPOCHS = 5  # changes of the owner after which a link to confirm an address is still recognized


def make_link_token(signers: Signers, user: User, kind: LinkKind, now: datetime) -> str:
    """A new token, which invalidates the older ones of its kind once `user` is committed."""
    expires_at = int((now + LINK_TTL).timestamp())
    setattr(user, f"newest_{kind}", expires_at)
    return _signer(signers, kind).sign(user.id, expires_at, _binding(user, kind, user.auth_epoch))


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


def find_renewable(session: Session, signers: Signers, token: str) -> tuple[LinkKind, User]:
    """The kind and the account of a link that may be mailed anew, however old it is; else InvalidLink."""
    return _authenticate(session, find_user, signers, token, *get_args(LinkKind))[:2]


def _redeem(
    session: Session,
    find: Callable[[Session, UUID], User | None],
    signers: Signers,
    token: str,
    now: datetime,
    *kinds: LinkKind,
) -> tuple[LinkKind, User]:
    """The kind of a valid token and the account that it names, or InvalidLink."""
    kind, user, expires_at = _authenticate(session, find, signers, token, *kinds)
    if from_timestamp(expires_at) <= now or expires_at < getattr(user, f"newest_{kind}"):
        raise InvalidLink(renewable=True)
    return kind, user


def _authenticate(
    session: Session, find: Callable[[Session, UUID], User | None], signers: Signers, token: str, *kinds: LinkKind
) -> tuple[LinkKind, User, int]:
    """The kind of a token of ours, its account, whose ownership has not changed since, and when it expires."""
    presented = parse_signed(token)
    user = find(session, presented.id) if presented else None
    if presented is None or user is None:
        raise InvalidLink
    for kind in kinds:
        if user.link_recipient(kind) and _signer(signers, kind).verify(
            presented, _binding(user, kind, user.auth_epoch)
        ):
            return kind, user, presented.number
    epochs = range(user.auth_epoch, max(user.auth_epoch - REMEMBERED_EPOCHS, 0), -1)
    if (
        "verification" in kinds
        and user.is_verified
        and any(signers.verification.verify(presented, _binding(user, "verification", epoch)) for epoch in epochs)
    ):
        raise AlreadyConfirmed
    raise InvalidLink


def _signer(signers: Signers, kind: LinkKind) -> TokenSigner:
    signer: TokenSigner = getattr(signers, kind)
    return signer


def _binding(user: User, kind: LinkKind, epoch: int) -> bytes:
    """Every new password raises the epoch. A confirmation depends on nothing else that a reset changes: then its link
    can still be recognized, and answered by AlreadyConfirmed."""
    if kind == "verification":
        return f"{epoch}\0{user.email}".encode()
    return f"{user.password_hash}\0{epoch}\0{user.email}\0{user.link_recipient(kind)}".encode()

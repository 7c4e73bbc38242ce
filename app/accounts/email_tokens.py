"""The tokens in mailed links: derived when the mail is written, never stored, valid once and for one hour.

One rule for every kind: a token is invalidated by a newer one of its kind, and by any change to the ownership of the
account: to its password, address or epoch, or when it is disabled (docs/security-tests.md).
"""

from datetime import datetime, timedelta

from sqlmodel import Session

from app.accounts.users import find_user, lock_user
from app.core.crypto import parse_signed
from app.core.errors import AlreadyConfirmed, InvalidLink, found
from app.models.audit import record
from app.models.user import LINK_KINDS, LinkKind, User
from app.oauth2.access_tokens import Signers

LINK_TTL = timedelta(hours=1)
REMEMBERED_EPOCHS = 5  # how many values of auth_epoch back a used verification link is still recognized


def make_link_token(signers: Signers, user: User, kind: LinkKind, now: datetime) -> str:
    """A new token, which invalidates the older ones of its kind once `user` is committed."""
    expires_at = int((now + LINK_TTL).timestamp())
    setattr(user, f"newest_{kind}", expires_at)
    return signers.links[kind].sign(user.id, expires_at, _binding(user, kind, user.auth_epoch))


def verify_reset(session: Session, signers: Signers, token: str, now: datetime) -> User:
    """The account whose password this token resets, or InvalidLink."""
    return _authenticate(session, signers, token, now, "reset")[1]


def redeem_verification(session: Session, signers: Signers, token: str, now: datetime) -> tuple[User, str]:
    """Verify the address, or finish the change to a new one, which counts as verified; else InvalidLink.

    Returns the account and the address that it had.
    """
    kind, user = _authenticate(session, signers, token, now, "email_change", "verification", lock=True)
    former = user.email
    if kind == "email_change" and user.new_email:
        user.email, user.new_email = user.new_email, None
    user.is_verified = True
    record(session, "email-changed" if user.email != former else "email-verified", user_id=user.id, by_owner=True)
    return user, former


def verify_renewable(session: Session, signers: Signers, token: str) -> tuple[LinkKind, User]:
    """The kind and the account of a link that a new one may replace, however old it is; else InvalidLink."""
    return _authenticate(session, signers, token, None, *LINK_KINDS)


def _authenticate(
    session: Session, signers: Signers, token: str, now: datetime | None, *kinds: LinkKind, lock: bool = False
) -> tuple[LinkKind, User]:
    """The kind of a token of ours and its account, whose ownership has not changed since; else InvalidLink.

    `now=None` skips the expiry check.
    """
    presented = found(parse_signed(token), InvalidLink)
    user = found((lock_user if lock else find_user)(session, presented.id), InvalidLink)
    for kind in kinds:
        if user.link_recipient(kind) and signers.links[kind].verify(presented, _binding(user, kind, user.auth_epoch)):
            is_newest = presented.number >= getattr(user, f"newest_{kind}")
            if now and not (is_newest and now.timestamp() < presented.number):
                raise InvalidLink(renewable=True)
            return kind, user
    if "verification" in kinds and user.is_verified:
        for epoch in range(user.auth_epoch, max(user.auth_epoch - REMEMBERED_EPOCHS, 0), -1):
            if signers.links["verification"].verify(presented, _binding(user, "verification", epoch)):
                raise AlreadyConfirmed
    raise InvalidLink


def _binding(user: User, kind: LinkKind, epoch: int) -> bytes:
    """The state of the account that a token is bound to: another state makes it invalid.

    Every new password raises the epoch. A verification token is not bound to the password hash: after a reset it can
    still be recognized by an earlier epoch, and answered by AlreadyConfirmed.
    """
    if kind == "verification":
        return f"{epoch}\0{user.email}".encode()
    return f"{user.password_hash}\0{epoch}\0{user.email}\0{user.link_recipient(kind)}".encode()

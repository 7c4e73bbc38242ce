"""The words of each mail, and to whom it goes.

A link's token is derived here, when the mail is made: it is in no row and no queue, and in the link it stands in the
fragment, which a browser sends to nobody.
"""

from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from typing import Any, NamedTuple
from uuid import UUID

from app.accounts.email_tokens import email_change_token, reset_token, verification_token
from app.core.settings import Settings
from app.core.templating import render
from app.email.sender import compose
from app.models.base import utcnow
from app.models.user import User
from app.oauth2.access_tokens import Signers


class Letter(NamedTuple):
    subject: str
    before: str
    after: str
    page: str = ""  # where its link leads


_LINK = "The link works once, for one hour. If you did not ask for it, ignore this mail: nothing changes."
_CONFIRM = "Confirm that this address is yours:"
LETTERS = {
    "reset": Letter(
        "Reset your password",
        "Somebody, probably you, asked to reset the password of this account.",
        _LINK,
        "reset-password",
    ),
    "verification": Letter("Confirm your e-mail address", _CONFIRM, _LINK, "verify-email"),
    "email-change": Letter("Confirm your new e-mail address", _CONFIRM, _LINK, "verify-email"),
    "email-changing": Letter(
        "Your e-mail address is about to change",
        "Somebody, probably you, asked to move this account to another e-mail address.",
        "It takes effect when the link that was sent there is opened. If it was not you, change your password now.",
    ),
    "password-changed": Letter(
        "Your password was changed",
        "The password of this account was changed, and every other device was signed out.",
        "If it was not you, reset the password at once.",
    ),
    "reuse": Letter(
        "A device was signed out",
        "One sign-in of this account was used from two places, so we ended it: {device}.",
        "If you did nothing unusual, somebody may have copied that device's token. Sign in again there and change your"
        " password.",
    ),
    "statement": Letter(
        "Your statement",
        "The statement that you asked for is ready: a page to read, and a table to calculate with.",
        "Both are attached, unless they are too large for a mail. For 30 days you can download them as well.",
    ),
    "job-failed": Letter(
        "A job of yours failed",
        "We tried several times to make your {what}, and could not.",
        "Start it again later. If it fails again, tell us its ticket: {ticket}.",
    ),
}


def write(
    message_id: UUID, told: Mapping[str, Any], account: User | None, settings: Settings, signers: Signers
) -> EmailMessage | None:
    """The mail that a job's arguments ask for; None when there is nothing to say any more."""
    addressed = _addressed(told, account, signers, utcnow())
    if addressed is None:
        return None
    recipient, token = addressed
    letter = LETTERS[told["letter"]]
    words = {
        "subject": letter.subject,
        "before": letter.before.format_map(told),
        "link": f"{settings.public_url}/{letter.page}#token={token}" if token else None,
        "after": letter.after.format_map(told),
    }
    message = compose(
        message_id=str(message_id), sender=settings.mail_from, recipient=recipient, subject=letter.subject
    )
    # 7bit keeps a link on one line, also for whoever reads the outbox with grep; there, base64 hides its copy.
    text = render("mail.txt", **words)
    message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    message.add_alternative(render("mail.html", **words), subtype="html", cte="base64")
    return message


def _addressed(
    told: Mapping[str, Any], account: User | None, signers: Signers, now: datetime
) -> tuple[str, str | None] | None:
    """To whom, and the token of the link. A link goes to the address that it is bound to, whatever it was before."""
    if account is None:
        return None
    match told["letter"], account:
        case "reset", User(is_active=True, password_hash=str()):
            return account.email, reset_token(signers, account, now)
        case "verification", User(is_active=True, is_verified=False):
            return account.email, verification_token(signers, account, now)
        case "email-change", User(new_email=str(new_email)):
            return new_email, email_change_token(signers, account, now)
        case "reset" | "verification" | "email-change", _:
            return None
    return told.get("to", account.email), None

"""The text of each mail, and its recipient.

The token of a link is derived when the mail is composed, so no row and no queue holds it. In the link it is part of the
fragment, which a browser sends to no server.
"""

from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, NamedTuple, get_args
from uuid import UUID

from app.accounts.email_tokens import make_link_token
from app.core.settings import Settings
from app.core.templating import render
from app.models.base import utcnow
from app.models.user import LinkKind, User
from app.oauth2.access_tokens import Signers


class MailTemplate(NamedTuple):
    subject: str
    opening: str
    closing: str
    page: str = ""  # the page that its link opens


_LINK = (
    "The link works once and expires in one hour. If you did not ask for it, you can ignore this e-mail: nothing has"
    " changed."
)
_CONFIRM = "Please confirm that this e-mail address is yours:"
MAIL_TEMPLATES = {
    "reset": MailTemplate(
        "Reset your password",
        "Someone, probably you, asked to reset the password of this account.",
        _LINK,
        "reset-password",
    ),
    "verification": MailTemplate("Confirm your e-mail address", _CONFIRM, _LINK, "verify-email"),
    "email_change": MailTemplate("Confirm your new e-mail address", _CONFIRM, _LINK, "verify-email"),
    "email-changing": MailTemplate(
        "Your e-mail address is about to change",
        "Someone, probably you, asked to change the e-mail address of this account.",
        "The change takes effect when the link that we sent to the new address is opened. If this was not you, change"
        " your password now.",
    ),
    "email-changed": MailTemplate(
        "Your e-mail address was changed",
        "The e-mail address of this account was changed. It is no longer this one.",
        "If this was not you, contact us now: mail to this address can no longer recover the account.",
    ),
    "password-changed": MailTemplate(
        "Your password was changed",
        "The password of this account was changed, and all other devices were signed out.",
        "If this was not you, reset your password now.",
    ),
    "reuse": MailTemplate(
        "A device was signed out",
        "The sign-in of one of your devices was used in two places, so we signed it out: {device}.",
        "If you did nothing unusual, someone may have copied the sign-in from that device. Sign in there again and"
        " change your password.",
    ),
    "statement": MailTemplate(
        "Your statement",
        "The statement you asked for is ready: a page to read and a table for your spreadsheet.",
        "Both are attached unless they are too large for an e-mail. You can also download them for the next 30 days.",
    ),
    "job-failed": MailTemplate(
        "Your {failed_kind} could not be created",
        "We tried several times to create your {failed_kind}, but could not.",
        "Please try again later. If it fails again, contact us and mention ticket {ticket}.",
    ),
}


def compose_mail(
    message_id: UUID, arguments: Mapping[str, Any], user: User | None, settings: Settings, signers: Signers
) -> EmailMessage | None:
    """The mail that a job's arguments describe, or None if there is no longer a reason to send it.

    A mail that is sent again has the same `message_id`.
    """
    recipient, token = _recipient(arguments, user, signers, utcnow())
    if recipient is None:
        return None
    template = MAIL_TEMPLATES[arguments["template"]]
    texts = {
        "subject": template.subject.format_map(arguments),
        "opening": template.opening.format_map(arguments),
        "link": f"{settings.public_url}/{template.page}#token={token}" if token else None,
        "closing": template.closing.format_map(arguments),
    }
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.mail_from, recipient, texts["subject"]
    message["Date"], message["Message-ID"] = formatdate(localtime=False), f"<{message_id}@muster>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation replies
    # 7bit keeps a link on one line, also for someone who greps the outbox, where base64 hides its copy in the HTML.
    text = render("mail.txt", **texts)
    message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    message.add_alternative(render("mail.html", **texts), subtype="html", cte="base64")
    return message


def _recipient(
    arguments: Mapping[str, Any], user: User | None, signers: Signers, now: datetime
) -> tuple[str | None, str | None]:
    """The address, and the token of the link if there is one. A link goes only to the address that it is bound to."""
    if user is None:
        return None, None
    kind = arguments["template"]
    if kind not in get_args(LinkKind):
        return arguments.get("to", user.email), None
    recipient = user.link_recipient(kind)
    return recipient, make_link_token(signers, user, kind, now) if recipient else None

"""The text of each mail (messages.toml), and its recipient.

The token of a link is derived when the mail is composed, so no row and no queue holds it. In the link it is part of the
fragment, which a browser sends to no server.
"""

import tomllib
from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit
from uuid import UUID

from app.accounts.email_tokens import make_link_token
from app.core.settings import Settings
from app.core.templating import render
from app.models.base import utcnow
from app.models.types import NO_MAILBOX, ascii_address
from app.models.user import LinkKind, User
from app.oauth2.access_tokens import Signers

_MAILS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def compose_mail(
    message_id: UUID, arguments: Mapping[str, Any], user: User | None, settings: Settings, signers: Signers
) -> EmailMessage | None:
    """The mail that a job's arguments describe, or None if there is no longer a reason to send it.

    A mail that is sent again has the same `message_id`.
    """
    recipient, token = _recipient(arguments, user, signers, utcnow())
    if user is None or recipient is None or recipient.endswith(NO_MAILBOX):
        return None
    is_own = user.is_verified and recipient == user.email
    if not is_own:  # it may be a stranger's address: omit text that a person chose
        arguments = {**arguments, "device": "a device"}
    texts = {name: text.format_map(arguments) for name, text in _MAILS[arguments["template"]].items()}
    texts |= {"person": user.name if is_own and user.name else "", "host": urlsplit(settings.public_url).netloc}
    page = f"{settings.public_url}/{texts['page']}" if "page" in texts else None
    texts["link"] = f"{page}#token={token}" if token else page or ""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.mail_from, ascii_address(recipient), texts["subject"]
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
    if kind == "statement" and not (user.is_active and user.is_verified):
        return None, None
    if kind not in get_args(LinkKind):
        return arguments.get("to", user.email), None
    recipient = user.link_recipient(kind)
    return recipient, make_link_token(signers, user, kind, now) if recipient else None

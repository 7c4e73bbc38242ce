"""Mails: their texts (messages.toml) and recipients, and sending them to an SMTP server or the outbox.

The token of a link is derived when the mail is composed, so no row and no queue holds it. In the link it is part of the
fragment, which a browser sends to no server.
"""

import smtplib
import ssl
import tomllib
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from uuid import uuid4

from app.accounts.email_tokens import make_link_token
from app.core.settings import Settings
from app.core.settings_types import tls_mode
from app.core.templating import render
from app.models.base import utcnow
from app.models.job import Job
from app.models.types import NO_MAILBOX, ascii_address
from app.models.user import LINK_KINDS, User
from app.oauth2.access_tokens import Signers

_MAILS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def compose_mail(job: Job, user: User, settings: Settings, signers: Signers) -> EmailMessage | None:
    """The mail that a job's arguments describe, or None if there is no longer a reason to send it.

    A mail that is sent again has the same Message-ID.
    """
    template, recipient = job.arguments["template"], _recipient(job.arguments, user)
    if recipient is None or recipient.endswith(NO_MAILBOX):
        return None
    is_own = user.is_verified and recipient == user.email
    # Another address may be a stranger's: omit text that a person chose.
    arguments = job.arguments if is_own else {**job.arguments, "device": "a device"}
    texts = {name: text.format_map(arguments) for name, text in _MAILS[template].items()}
    texts |= {"person": user.name if is_own and user.name else "", "host": urlsplit(settings.public_url).netloc}
    texts["link"] = f"{settings.public_url}/{texts['page']}" if "page" in texts else ""
    if template in LINK_KINDS:
        texts["link"] += f"#token={make_link_token(signers, user, template, utcnow())}"
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.mail_from, ascii_address(recipient), texts["subject"]
    message["Date"], message["Message-ID"] = formatdate(localtime=False), f"<{job.id}@muster>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation replies
    # 7bit keeps the link on one line, so that grep finds it in the outbox; base64 hides its copy in the HTML from grep.
    text = render("mail.txt", **texts)
    message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    message.add_alternative(render("mail.html", **texts), subtype="html", cte="base64")
    return message


def _recipient(arguments: Mapping[str, str], user: User) -> str | None:
    """The address, if there still is a reason to write. A link goes only to the address that it is bound to."""
    template = arguments["template"]
    if template in LINK_KINDS:
        return user.link_recipient(template)
    if template == "statement" and not (user.is_active and user.is_verified):
        return None
    return arguments.get("to", user.email)


# ---- Sending ----

# The words for the operator: those of the first that fits. A server's own are left out: they may repeat the address.
_FAILURES: list[tuple[type[Exception], str]] = [
    (smtplib.SMTPAuthenticationError, "The mail server refused the user name or the password of MAIL_URL"),
    (smtplib.SMTPRecipientsRefused, "The mail server refused the recipient"),
    (smtplib.SMTPResponseException, "The mail server refused the mail"),
    (smtplib.SMTPException, "The mail server ended the conversation"),
    (OSError, "The mail server cannot be reached"),
]


def send_mail(settings: Settings, message: EmailMessage) -> None:
    """Send a message as MAIL_URL says: by SMTP, or in development to files in data/outbox, which /dev/mail shows."""
    if folder := settings.outbox:
        # One .eml file per message, never visible in part. A message sent again replaces its file.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # mails contain links that sign in
        draft = folder / f".{uuid4()}.tmp"
        draft.write_bytes(message.as_bytes())
        draft.rename(folder / f"{message['Message-ID'][1:].partition('@')[0]}.eml")
    else:
        _send_by_smtp(urlsplit(settings.mail_url), message)


def describe_failure(error: Exception) -> str:
    """Why a mail was not sent, with the server's code or the name of the error."""
    text = next((text for kind, text in _FAILURES if isinstance(error, kind)), "The mail was not sent")
    refusals = getattr(error, "recipients", {}).values()
    codes = [code for code in (getattr(error, "smtp_code", None), *(code for code, _ in refusals)) if code]
    return f"{text}: {codes[0] if codes else type(error).__name__}"


def _send_by_smtp(url: SplitResult, message: EmailMessage) -> None:
    """Send to smtp://user:password@host:port?tls=starttls|implicit|none, by default with STARTTLS (RFC 3207)."""
    tls = tls_mode(url)
    context = ssl.create_default_context()
    host, port = url.hostname or "localhost", url.port or (465 if tls == "implicit" else 587)
    connect = partial(smtplib.SMTP_SSL, context=context) if tls == "implicit" else smtplib.SMTP
    with connect(host, port, timeout=10.0) as smtp:  # seconds for each step of the conversation
        if tls == "starttls":
            smtp.starttls(context=context)
        if url.username:
            smtp.login(unquote(url.username), unquote(url.password or ""))
        smtp.send_message(message)

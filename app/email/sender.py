"""Sends mail to an SMTP server, or in development to files in data/outbox, which the page /dev/mail shows."""

import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit
from uuid import uuid4

from app.core.settings import Settings

TIMEOUT = 10.0  # seconds for each step of an SMTP conversation
# For the operator. The first that fits counts; a server's own words are left out, since they may repeat the address.
_FAILURES: list[tuple[type[Exception], str]] = [
    (smtplib.SMTPAuthenticationError, "The mail server refused the user name or the password of MAIL_URL"),
    (smtplib.SMTPRecipientsRefused, "The mail server refused the recipient"),
    (smtplib.SMTPResponseException, "The mail server refused the mail"),
    (smtplib.SMTPException, "The mail server ended the conversation"),
    (OSError, "The mail server cannot be reached"),
]


def send_mail(settings: Settings, message: EmailMessage) -> None:
    """Send a message as MAIL_URL says: by SMTP, or to the outbox."""
    if settings.outbox is None:
        _send_by_smtp(urlsplit(settings.mail_url), message)
    else:
        _write_to_outbox(settings.outbox, message)


def describe_failure(error: Exception) -> str:
    """Why a mail was not sent, with the server's code or the name of the error."""
    text = next((text for kind, text in _FAILURES if isinstance(error, kind)), "The mail was not sent")
    refusals = getattr(error, "recipients", {}).values()
    codes = [code for code in (getattr(error, "smtp_code", None), *(code for code, _ in refusals)) if code]
    return f"{text}: {codes[0] if codes else type(error).__name__}"


def _send_by_smtp(url: SplitResult, message: EmailMessage) -> None:
    """Send to smtp://user:password@host:port?tls=starttls|implicit|none, by default with STARTTLS (RFC 3207)."""
    tls = parse_qs(url.query).get("tls", ["starttls"])[0]
    context = ssl.create_default_context()
    host, port = url.hostname or "localhost", url.port or (465 if tls == "implicit" else 587)
    connection = (
        smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=context)
        if tls == "implicit"
        else smtplib.SMTP(host, port, timeout=TIMEOUT)
    )
    with connection as smtp:
        if tls == "starttls":
            smtp.starttls(context=context)
        if url.username:
            smtp.login(unquote(url.username), unquote(url.password or ""))
        smtp.send_message(message)


def _write_to_outbox(folder: Path, message: EmailMessage) -> None:
    """Write one .eml file per message, never visible in part. A message sent again replaces its file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # mails contain links that sign in
    draft = folder / f".{uuid4()}.tmp"
    draft.write_bytes(message.as_bytes())
    draft.rename(folder / f"{message['Message-ID'][1:].partition('@')[0]}.eml")

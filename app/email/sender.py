"""Sends mail to an SMTP server, or in development to files in data/outbox that a mail program opens."""

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

from app.core.settings import DATA, Settings

TIMEOUT = 10.0  # seconds for each step of an SMTP conversation


@dataclass(frozen=True)
class Outbox:
    """Writes each message to one .eml file, never visible in part. A message sent again replaces its file."""

    folder: Path

    def send(self, message: EmailMessage) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".{uuid4()}.tmp"
        draft.write_bytes(message.as_bytes())
        draft.rename(self.folder / f"{message['Message-ID'][1:].partition('@')[0]}.eml")


@dataclass(frozen=True)
class Smtp:
    """smtp://user:password@host:port?tls=starttls|implicit|none, by default with STARTTLS (RFC 3207)."""

    url: str

    def send(self, message: EmailMessage) -> None:
        parts = urlsplit(self.url)
        tls = parse_qs(parts.query).get("tls", ["starttls"])[0]
        context = ssl.create_default_context()
        host, port = parts.hostname or "localhost", parts.port or (465 if tls == "implicit" else 587)
        connection = (
            smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=context)
            if tls == "implicit"
            else smtplib.SMTP(host, port, timeout=TIMEOUT)
        )
        with connection as smtp:
            if tls == "starttls":
                smtp.starttls(context=context)
            if parts.username:
                smtp.login(unquote(parts.username), unquote(parts.password or ""))
            smtp.send_message(message)


def mailer_for(settings: Settings) -> Outbox | Smtp:
    parts = urlsplit(settings.mail_url)
    if parts.scheme == "smtp":
        return Smtp(settings.mail_url)
    return Outbox(Path(parts.path) if parts.path and parts.scheme else DATA / "outbox")

"""The mails that the service sends, made and sent after the answer in a thread of their own.

A link's token is derived here, when the mail is made: it is in no row and no queue, and in the link it stands in the
fragment, which a browser sends to nobody.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from app import metrics
from app.accounts import Credentials, credentials_by_email, credentials_by_id
from app.db import Database
from app.links import email_change_token, reset_token, verification_token
from app.mail import Outbox, Smtp, compose
from app.models import utcnow
from app.security import Signers
from app.sessions import SessionState

log = logging.getLogger("muster.mail")


class Postbox:
    """Each method returns at once; what it asks for is sent in order, and a failure is logged and counted."""

    def __init__(self, database: Database, signers: Signers, mailer: Outbox | Smtp, *, sender: str, url: str) -> None:
        self._database = database
        self._signers = signers
        self._mailer = mailer
        self._sender = sender
        self._url = url
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mail")

    def close(self) -> None:
        """Send what waits, then stop."""
        self._thread.shutdown(wait=True)

    def reset(self, email: str) -> None:
        """The account is looked up later, so that a known address answers no slower than an unknown one."""
        self._later(self._send_reset, email)

    def verification(self, email: str) -> None:
        self._later(self._send_verification, email)

    def email_change(self, user_id: UUID) -> None:
        """A link to the new address, a warning to the old one."""
        self._later(self._send_email_change, user_id)

    def password_changed(self, email: str) -> None:
        self._later(self._send, email, "Your password was changed", _CHANGED)

    def reuse(self, state: SessionState) -> None:
        """To the owner of a session whose token two people held."""
        self._later(self._send, state.email, "A device was signed out", _REUSE.format(device=state.device))

    def _later(self, work: Callable[..., None], *arguments: Any) -> None:
        self._thread.submit(self._guarded, work, *arguments)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:  # the thread goes on whatever a mail server does
            metrics.count("mail_failures")
            # The class alone: an SMTP error repeats the recipient.
            log.error("mail not sent: %s", type(error).__name__)  # noqa: TRY400

    def _send_reset(self, email: str) -> None:
        account = self._account(email)
        if account is not None and account.is_active:
            link = self._link("reset-password", reset_token(self._signers, account, utcnow()))
            self._send(account.email, "Reset your password", _RESET.format(link=link))

    def _send_verification(self, email: str) -> None:
        account = self._account(email)
        if account is not None and account.is_active and not account.is_verified:
            link = self._link("verify-email", verification_token(self._signers, account, utcnow()))
            self._send(account.email, "Confirm your e-mail address", _VERIFY.format(link=link))

    def _send_email_change(self, user_id: UUID) -> None:
        with self._database.reading() as session:
            account = credentials_by_id(session, user_id)
        if account is not None and account.new_email:
            link = self._link("verify-email", email_change_token(self._signers, account, utcnow()))
            self._send(account.new_email, "Confirm your new e-mail address", _VERIFY.format(link=link))
            self._send(account.email, "Your e-mail address is about to change", _EMAIL_CHANGE)

    def _account(self, email: str) -> Credentials | None:
        with self._database.reading() as session:
            return credentials_by_email(session, email)

    def _link(self, page: str, token: str) -> str:
        return f"{self._url}/{page}#token={token}"

    def _send(self, recipient: str, subject: str, text: str) -> None:
        self._mailer.send(compose(sender=self._sender, recipient=recipient, subject=subject, text=text))


_RESET = """Somebody, probably you, asked to reset the password of this account.

{link}

The link works once, for one hour. If it was not you, ignore this mail: nothing has changed.
"""

_VERIFY = """Confirm that this address is yours:

{link}

The link works once, for one hour. If you did not ask for it, ignore this mail.
"""

_EMAIL_CHANGE = """Somebody, probably you, asked to move this account to another e-mail address.

It takes effect when the link that was sent there is opened. If it was not you, change your password now.
"""

_CHANGED = """The password of this account was changed, and every other device was signed out.

If it was not you, reset the password at once.
"""

_REUSE = """One sign-in of this account was used from two places, so we ended it: {device}.

If you did nothing unusual, somebody may have copied that device's token. Sign in again there and change your password.
"""

"""Mail through a real SMTP server: over verified TLS, after the response, and without ever holding up the service."""

import re
import ssl
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as email_policy
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from app.core.settings import Settings
from app.email.messages import compose_mail
from app.models.job import Job
from app.models.user import User
from app.oauth2.access_tokens import Signers
from tests.support.certificates import self_signed
from tests.support.cookie_browser import Browser
from tests.support.databases import ROOT
from tests.support.mailed_links import reset_password
from tests.support.servers import PASSWORD, STARTUP, Muster, free_port, text_of, wait_for

pytestmark = pytest.mark.one_database

Serve = Callable[..., Muster]
USER, SECRET = "muster", "p@ss/word:1"
PUBLIC_URL = "https://muster.example"
MAILS: dict[str, dict[str, str]] = tomllib.loads((ROOT / "app/email/messages.toml").read_text())


class Inbox:
    """Keeps the mails that arrive; refuses recipients whose address says so."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.logins: list[tuple[str, str]] = []

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return f"550 no such user {address}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # the same
        self.mails.append(envelope)
        return "250 OK"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=self.logins[-1] == (USER, SECRET))

    def mail_to(self, address: str) -> EmailMessage:
        """The newest mail to an address, once there is one."""
        found = wait_for(lambda: [mail for mail in self.mails if mail.rcpt_tos == [address]], what="a mail")
        content = found[-1].content
        assert isinstance(content, bytes)
        return message_from_bytes(content, policy=email_policy)


class Server(Controller):
    """A server that stops once its clients have disconnected: asyncio warns about connections dropped while in use."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.connections: list[SMTP] = []
        super().__init__(*arguments, **options)

    def factory(self) -> SMTP:
        self.connections.append(super().factory())  # type: ignore[no-untyped-call]  # aiosmtpd leaves it untyped
        return self.connections[-1]

    def stop(self, no_assert: bool = False) -> None:
        wait_for(lambda: all(connection.transport is None for connection in self.connections), what="the clients' end")
        super().stop(no_assert)


@contextmanager
def smtp_server(inbox: Inbox, port: int = 0, **options: Any) -> Iterator[int]:
    """An SMTP server on localhost; its port."""
    port = port or free_port()
    controller = Server(inbox, hostname="127.0.0.1", port=port, ready_timeout=STARTUP, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("certificate"))


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def mail_url(port: int, mode: str, host: str = "localhost") -> str:
    return f"smtp://{USER}:{quote(SECRET, safe='')}@{host}:{port}?tls={mode}"


def register(muster: Muster, name: str = "") -> str:
    """The address of a new account, to which a mail is now on its way."""
    email = f"{name}{uuid4().hex}@example.com"
    answer = muster.client.post("/api/auth/register", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201
    return email


# ---- The content of a mail ----


@pytest.mark.slow
def test_a_recipient_gets_ten_mails_of_a_kind_in_an_hour_and_the_tenth_link_works(muster: Muster) -> None:
    account, other = muster.new_account(), muster.new_account()
    for email in [account.email] * 12 + [other.email]:  # mails leave in order: then the last of the others has left
        assert muster.client.post("/api/auth/forgot-password", json={"email": email}).status_code == 202
    muster.mails(other.email)
    assert len(muster.mails(account.email)) == 10
    assert reset_password(muster, muster.link_token(account.email, subject="Reset")).status_code == 204
    assert muster.mails(account.email, subject="Your password was changed")


def test_a_link_carries_its_token_in_the_fragment(muster: Muster) -> None:
    account = muster.register()
    muster.client.post("/api/auth/forgot-password", json={"email": account.email})
    for subject, page in (("Confirm your e-mail", "verify-email"), ("Reset your password", "reset-password")):
        mail = muster.mails(account.email, subject=subject)[-1]
        assert mail.get_content_type() == "multipart/alternative"
        links = re.findall(r"http\S+", text_of(mail))
        assert text_of(mail, "html").count(f'href="{links[0]}"') == 2, "a button, and the link itself"
        assert len(links) == 1
        assert re.fullmatch(rf"http://localhost:{muster.port}/{page}#token=[A-Za-z0-9_-]{{72}}", links[0])
        assert (mail["From"], mail["To"]) == ("Muster <muster@localhost>", account.email)
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["Message-ID"]
        assert mail["Date"]


@pytest.mark.parametrize("template", MAILS)
def test_a_mail_says_the_same_in_text_and_html_and_its_button_names_the_page_it_opens(template: str) -> None:
    person = User(email="ada@example.com", name="Ada <3", new_email="new@example.com", password_hash="-")
    person.is_verified = template != "verification"
    values = {"template": template, "device": "phone", "failed_kind": "statement", "ticket": "7f3a"}
    settings = Settings(public_url=PUBLIC_URL, secret_keys=["a secret"])
    job = Job(kind="mail", queue="high", arguments=values)
    mail = compose_mail(job, person, settings, Signers(("a secret",), PUBLIC_URL))
    assert mail is not None
    text, page = text_of(mail), text_of(mail, "html")
    words = {name: sentence.format_map(values) for name, sentence in MAILS[template].items()}
    for sentence in (words["opening"], words["closing"], words.get("button", ""), "Muster, muster.example"):
        assert (sentence in text, sentence in page) == (True, True), sentence
    assert page.index(words["preview"]) < page.index("<h1")
    is_own = template not in {"verification", "email_change"}  # a mail to an unconfirmed address contains no name
    assert text.startswith("Hello Ada <3,\n" if is_own else "Hello,\n")
    assert ("Hello Ada &lt;3," in page, "Ada" in page) == (is_own, is_own)
    if "page" in words:
        assert text.count(f"{PUBLIC_URL}/{words['page']}") == 1
        template_of_page = (ROOT / f"app/templates/pages/{words['page']}.html").read_text()
        heading = re.search("<h1>(.+)</h1>", template_of_page)
        assert heading
        assert heading[1].lower() in words["button"].lower()


# ---- By SMTP ----


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_mail_goes_over_tls_with_a_login_to_a_server_that_is_trusted(
    serve: Serve, certificate: Path, mode: str
) -> None:
    inbox, context = Inbox(), tls(certificate)
    options: dict[str, dict[str, Any]] = {
        "starttls": {"tls_context": context, "require_starttls": True},
        "implicit": {"ssl_context": context, "auth_require_tls": False},  # to aiosmtpd only STARTTLS is TLS
    }
    with smtp_server(inbox, authenticator=inbox.authenticate, **options[mode]) as port:
        muster = serve(
            MAIL_URL=mail_url(port, mode),
            MAIL_FROM="Muster <hello@muster.example>",
            PUBLIC_URL=PUBLIC_URL,
            SSL_CERT_FILE=str(certificate),
        )
        email = register(muster)
        mail = inbox.mail_to(email)
    assert f"{PUBLIC_URL}/verify-email#token=" in text_of(mail)
    assert mail["From"] == "Muster <hello@muster.example>"
    assert inbox.mails[-1].mail_from == "hello@muster.example"
    assert inbox.logins == [(USER, SECRET)]


@pytest.mark.slow
def test_mail_is_sent_in_the_clear_only_if_the_settings_say_so(serve: Serve) -> None:
    inbox = Inbox()
    with smtp_server(inbox) as port:
        plain, strict = serve(MAIL_URL=f"smtp://localhost:{port}?tls=none"), serve(MAIL_URL=f"smtp://localhost:{port}")
        register(strict)
        wait_for(lambda: "(mail), attempt 1 of 8" in strict.log, what="a failure in the log")
        inbox.mail_to(register(plain))
        assert len(inbox.mails) == 1


# ---- Failures ----


def test_an_untrusted_server_receives_neither_password_nor_mail(serve: Serve, certificate: Path) -> None:
    inbox = Inbox()
    with smtp_server(inbox, tls_context=tls(certificate), authenticator=inbox.authenticate) as port:
        muster = serve(MAIL_URL=mail_url(port, "starttls"))
        email = register(muster)
        wait_for(lambda: "(mail), attempt 1 of 8: SSLCertVerificationError" in muster.log, what="a failure in the log")
    assert (inbox.mails, inbox.logins) == ([], [])
    assert email not in muster.log


def test_a_failing_server_breaks_no_request_and_logs_no_address(serve: Serve) -> None:
    inbox = Inbox()
    port = free_port()
    muster = serve(
        MAIL_URL=f"smtp://{USER}:{quote(SECRET, safe='')}@localhost:{port}?tls=none", ENVIRONMENT="development"
    )
    away = register(muster)
    wait_for(lambda: "(mail), attempt 1 of 8: ConnectionRefusedError" in muster.log, what="a failure in the log")
    assert muster.token(grant_type="password", username=away, password=PASSWORD).status_code == 200
    assert muster.client.post("/api/auth/forgot-password", json={"email": away}).status_code == 202

    with smtp_server(inbox, port, authenticator=inbox.authenticate, auth_require_tls=False):
        refused = register(muster, "refused")
        wait_for(lambda: "(mail), attempt 1 of 8: SMTPRecipientsRefused" in muster.log, what="a failure in the log")
        inbox.mail_to(register(muster))
    reasons = " ".join(row.error for row in muster.sql("SELECT error FROM job WHERE error IS NOT NULL"))
    assert "The mail server cannot be reached: ConnectionRefusedError (ticket " in reasons
    assert "The mail server refused the recipient: 550 (ticket " in reasons
    operator = Browser(muster).sign_in(muster.admin())
    wait_for(
        lambda: ">retrying<" in operator.call("GET", "/admin/jobs?state=waiting").text, what="the mail on its page"
    )
    for secret in (away, refused, SECRET, PASSWORD, "#token="):
        assert secret not in muster.log + reasons

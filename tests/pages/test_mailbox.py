"""The development mailbox at /dev/mail: there in development, for this machine, and nowhere else."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from app.core.settings import Settings
from tests.support.chromium import Chromium
from tests.support.databases import fresh_database
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database


@pytest.fixture(scope="module")
def in_development(folder: Path, postgres: str) -> Iterator[Muster]:
    with fresh_database("sqlite", folder, postgres) as url, Muster(url, folder, ENVIRONMENT="development") as served:
        yield served


def test_the_mailbox_shows_the_newest_mail_first_to_this_machine_alone(in_development: Muster) -> None:
    account, client = in_development.register(name="Ada"), in_development.client
    in_development.mails(account.email)
    sent = client.post("/forgot-password", data={"email": account.email}, headers={"Origin": in_development.url})
    assert '<a href="/dev/mail">open the mailbox</a>' in sent.text
    mail = in_development.mails(account.email, subject="Reset")[-1]
    listed = client.get("/dev/mail")
    assert listed.text.index("Reset your password") < listed.text.index("Confirm your e-mail address")
    path = f"/dev/mail/{str(mail['Message-ID'])[1:].partition('@')[0]}"
    assert path in listed.text
    assert listed.headers["cache-control"] == "private, no-store"
    shown, html = client.get(path), client.get(f"{path}/html")
    assert shown.text.count("/reset-password#token=") == 2, "the text's link, which can be opened"
    assert "style-src 'self'" in shown.headers["content-security-policy"]
    assert "sandbox allow-popups" in html.headers["content-security-policy"]
    assert html.text.count("/reset-password#token=") == 3
    for address in ("/dev/mail", path, f"{path}/html"):
        for headers in ({"X-Forwarded-For": "127.0.0.1"}, {"Host": "evil.example"}):
            assert client.get(address, headers=headers).status_code == 404
    assert client.get(f"/dev/mail/{uuid4()}").status_code == 404


def test_a_mail_fits_a_phone_and_its_button_opens_the_page(in_development: Muster, chromium: Chromium) -> None:
    account = in_development.register()
    in_development.mails(account.email)
    with chromium.visitor(in_development, viewport={"width": 360, "height": 780}, color_scheme="dark") as phone:
        page = phone.open("/forgot-password")
        page.get_by_label("E-mail").fill(account.email)
        page.get_by_role("button", name="Send link").click()
        in_development.mails(account.email, subject="Reset")
        page.get_by_role("link", name="open the mailbox").click()
        page.get_by_role("link", name="Reset your password").first.click()
        mail = page.frame_locator("iframe")
        expect(mail.get_by_text("Someone, probably you")).to_be_visible()
        page.wait_for_load_state()  # what is visible may still be without its style sheet
        assert mail.locator("body").evaluate("body => body.scrollWidth <= body.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth <= 360")
        assert mail.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(16, 21, 18)"
        with phone.context.expect_page() as opened:
            mail.get_by_role("link", name="Set a new password").click()
        expect(opened.value.get_by_role("heading", name="Set a new password")).to_be_visible()


def test_the_outbox_is_not_served_elsewhere(muster: Muster) -> None:
    account = muster.register()
    muster.mails(account.email)
    assert muster.client.get("/dev/mail").status_code == 404
    page = muster.client.post("/forgot-password", data={"email": account.email}, headers={"Origin": muster.url})
    assert "/dev/mail" not in page.text


@pytest.mark.parametrize(
    ("environment", "mail_url", "has_mailbox"),
    [
        ("development", "outbox", True),
        ("development", "outbox:///srv/outbox", True),
        ("development", "smtp://mail.example.com", False),
        ("test", "outbox", False),
    ],
)
def test_the_mailbox_requires_the_outbox_and_development(environment: str, mail_url: str, has_mailbox: bool) -> None:
    values = {"environment": environment, "mail_url": mail_url, "secret_keys": ["a secret"]}
    assert Settings.model_validate(values).has_mailbox is has_mailbox

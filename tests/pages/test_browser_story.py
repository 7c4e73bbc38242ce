"""A person's story in a real browser: register, add an operation, sign another device out, reset a password."""

import re
from uuid import uuid4

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from tests.support.chromium import Chromium, Visitor
from tests.support.servers import PASSWORD, Muster, text_of, wait_for

pytestmark = pytest.mark.one_database

FAIL_MAIL = """
    UPDATE job SET state = 'failed', error = 'The mail server cannot be reached: gaierror (ticket 1f0c3ba5d27e).'
    WHERE state = 'done' AND owner_id = (SELECT id FROM "user" WHERE email = :email) RETURNING id
"""
OTHER_PASSWORD = "copper-lantern-meadow"


def add_operation(page: Page, *, month: str, quantity: str = "10") -> None:
    page.get_by_role("link", name="Operations", exact=True).click()
    page.get_by_role("link", name="Add an operation").click()
    page.get_by_label("Type").fill("sell")
    page.get_by_label("Instrument").fill("BTC")
    page.get_by_label("FIGI").fill("BBG000B9XRY4")
    page.get_by_label("Quantity").fill(quantity)
    page.get_by_label("Date and time").fill(f"{month}-26T08:29")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_have_text("The operation was added.")


def bar_of(page: Page, month: str) -> str:
    """The chart's label of a month."""
    title = page.locator("svg title", has_text=month)
    expect(title).to_have_count(1)
    return str(title.text_content())


def test_from_registering_to_a_new_password(muster: Muster, chromium: Chromium) -> None:
    """One story, since registering and adding operations take longer than the checks."""
    email = f"{uuid4().hex}@example.com"
    with chromium.visitor(muster) as laptop, chromium.visitor(muster) as phone:
        page = laptop.open("/")
        register(page, email)
        expect(page).to_have_url(f"{muster.url}/operations")
        page.goto(f"{muster.url}/sign-in?next=/devices")
        expect(page).to_have_url(f"{muster.url}/devices")
        page.goto(f"{muster.url}/operations")
        expect(page.get_by_role("heading", name="No operations yet")).to_be_visible()

        add_operation(page, month="2023-10")
        assert bar_of(page, "2023-10") == "2023-10: 1"
        add_operation(page, month="2023-10")
        assert bar_of(page, "2023-10") == "2023-10: 2"

        page.get_by_role("link", name="Edit sell of 10").first.click()
        expect(page.get_by_label("Date and time")).to_have_value("2023-10-26T08:29")
        page.get_by_label("Quantity").fill("0.00000001")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("cell", name="0.00000001", exact=True)).to_be_visible()

        other = phone.sign_in(email)
        expect(other).to_have_url(f"{muster.url}/operations")
        page.get_by_role("link", name="Devices").click()
        devices = page.get_by_role("listitem").filter(has_text="Chrome on Linux")
        expect(devices).to_have_count(2)
        expect(devices.first).to_contain_text(re.compile("this device.*last used just now", re.DOTALL))
        page.get_by_role("button", name="Sign out all other devices").click()
        expect(page.get_by_role("status")).to_have_text("Every other device was signed out.")
        other.get_by_role("link", name="Devices").click()
        expect(other.get_by_role("status")).to_have_text("Your session has ended. Sign in again.")
        other.get_by_label("E-mail").fill(email)
        other.get_by_label("Password").fill(PASSWORD)
        other.get_by_role("main").get_by_role("button", name="Sign in").click()
        expect(other).to_have_url(f"{muster.url}/devices")

        a_statement_shows_its_progress(page)
        page.goto(f"{muster.url}/verify-email#token={muster.link_token(email, subject='Confirm')}")
        an_address_is_confirmed_by_the_link(page)
        page.goto(f"{muster.url}/operations")
        page.locator("summary.person").click()
        expect(page.get_by_text(email)).to_be_visible()
        page.get_by_role("button", name="Sign out", exact=True).click()
        expect(page.get_by_role("status")).to_have_text("You are signed out.")
        a_password_is_reset_by_the_link_in_the_outbox(laptop, muster, email)


def register(page: Page, email: str) -> None:
    """Register with a password that is refused at first."""
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Password").fill("password1")
    expect(page.locator(".verdict")).to_contain_text("easy to guess")  # while typing: nothing was sent
    expect(page.locator(".verdict")).to_have_css("color", "rgb(179, 38, 30)")
    expect(page.get_by_label("Password")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Password")).to_have_accessible_description(re.compile("easy to guess"))
    page.get_by_role("main").get_by_role("button", name="Register").click()
    expect(page.get_by_label("Password")).to_be_focused()
    page.get_by_label("Password").fill(PASSWORD)
    expect(page.locator(".verdict")).to_have_text("This password can be used.")
    expect(page.get_by_label("Password")).not_to_have_attribute("aria-invalid", "true")
    expect(page.locator("#password-error")).to_be_hidden()
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("Password")).to_have_attribute("type", "text")
    page.get_by_role("main").get_by_role("button", name="Register").click()


def a_statement_shows_its_progress(page: Page) -> None:
    page.get_by_role("link", name="Statements").click()
    page.get_by_text("Other dates").click()
    page.get_by_label("From").fill("2023-01-01")
    page.get_by_label("Before").fill("2022-01-01")
    page.get_by_role("button", name="Create statement").click()
    expect(page.get_by_label("Before")).to_be_focused()
    expect(page.locator("#to-error")).to_have_text("Choose an end after the start.")
    page.get_by_label("Before").fill("2024-01-01")
    page.get_by_role("button", name="Create statement").click()
    expect(page.get_by_role("heading", name="2023 Ready")).to_be_visible()
    page.get_by_role("link", name="Read").click()  # waits for it, and nobody reloads the page
    expect(page.get_by_role("heading", name="Statement")).to_be_visible()
    assert bar_of(page, "2023-10") == "2023-10: 2"


def an_address_is_confirmed_by_the_link(page: Page) -> None:
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status")).to_have_text("Your e-mail address is confirmed.")
    expect(page.get_by_text("confirmed", exact=True)).to_be_visible()


def a_password_is_reset_by_the_link_in_the_outbox(visitor: Visitor, muster: Muster, email: str) -> None:
    page = visitor.open("/sign-in")
    page.get_by_role("link", name="Forgot your password?").click()
    page.get_by_label("E-mail").fill(email)
    page.get_by_role("button", name="Send link").click()
    expect(page.get_by_role("status")).to_contain_text("a link is on its way")
    found = re.search(r"http\S+#token=\S+", text_of(muster.mails(email, subject="Reset")[-1]))
    assert found
    page.goto(f"{muster.url}/reset-password#token=of-an-older-link")
    page.goto(re.sub(r"http://[^/]+", muster.url, found[0]))  # in the same tab
    expect(page).to_have_url(f"{muster.url}/reset-password")
    expect(page.get_by_label("Code from the link")).to_be_hidden()
    page.get_by_label("New password").fill("password1")
    page.get_by_role("button", name="Set password").click()
    expect(page.locator("#new_password-error")).to_be_visible()
    expect(page.locator("input[name=token]")).to_have_attribute("type", "hidden")
    page.get_by_label("New password").fill(OTHER_PASSWORD)
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_role("status")).to_have_text("Your password was changed. Sign in with the new one.")
    visitor.sign_in(email, OTHER_PASSWORD)
    expect(page).to_have_url(f"{muster.url}/operations")


def test_a_history_is_imported_filtered_copied_and_edited(muster: Muster, chromium: Chromium) -> None:
    """A phone in Berlin: a sample, a file with a mistake, filters, a copy, and a change that another preceded."""
    account = muster.new_account(name="Ada")
    phone = {"viewport": {"width": 360, "height": 780}, "timezone_id": "Europe/Berlin"}
    with chromium.visitor(muster, **phone) as visitor:
        page = visitor.sign_in(account.email)
        page.get_by_role("button", name="Load a sample").click()
        expect(page.get_by_role("heading", name="Operations 52")).to_be_visible()
        page.wait_for_load_state()  # with its styles
        first = page.locator(".ledger tbody tr").first.bounding_box()
        assert first
        assert first["y"] < 300, "the list begins on the first screen"

        import_with_a_mistake(page)
        expect(page.get_by_role("heading", name="Operations 53")).to_be_visible()
        go_back_and_send_again(page)

        page.get_by_text("Filter", exact=True).click()
        page.get_by_label("Type").fill("deposit")
        page.get_by_role("button", name="Show").click()
        there = page.get_by_role("cell", name="2026-01-30 09:00")
        expect(there.locator("time")).to_have_attribute("title", "2026-01-30 08:00 UTC")
        assert bar_of(page, "2026-01") == "2026-01: 1"
        page.get_by_role("link", name="Quantity").click()
        assert bar_of(page, "2026-01") == "2026-01: 0.5"

        page.get_by_role("link", name="Edit deposit").click()
        expect(page.get_by_label("Date and time")).to_have_value("2026-01-30T09:00")
        muster.sql("UPDATE operation SET revision = revision + 1, quantity = '3' WHERE type = 'deposit'")
        page.get_by_label("Quantity").fill("2")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("row", name="Quantity 2 3")).to_be_visible()
        expect(page.get_by_role("row", name="Date 2026-01-30 09:00 2026-01-30 09:00")).to_be_visible()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("status")).to_have_text("The operation was saved.")

        page.goto(f"{muster.url}/operations?type=deposit")
        page.get_by_role("link", name="Duplicate deposit of 2").click()
        expect(page.get_by_label("Quantity")).to_have_value("2")
        page.get_by_role("button", name="Add").click()
        page.get_by_role("link", name="Older").click()
        page.get_by_role("link", name="Newer").click()
        expect(page.get_by_role("heading", name="Operations 56")).to_be_visible()
        page.get_by_label("More").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Export all as CSV").click()
        assert len(download.value.path().read_text().splitlines()) == 1 + 56


def go_back_and_send_again(page: Page) -> None:
    """Go back and send a form again: unchanged, it records nothing; changed, it does once the person insists."""
    page.get_by_role("link", name="Add an operation").click()
    for label, text in (("Type", "fee"), ("FIGI", "EUR"), ("Quantity", "1"), ("Date and time", "2026-02-01T10:00")):
        page.get_by_label(label).fill(text)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="Operations 54")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Type")).to_have_value("fee")  # as the browser kept it
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="Operations 54")).to_be_visible()
    page.go_back()
    page.get_by_label("Quantity").fill("2")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("already sent")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="Operations 55")).to_be_visible()


def import_with_a_mistake(page: Page) -> None:
    """Import a file of one line, which is wrong at first, chosen before the script that reads it has come."""
    lines = "type;figi;quantity;date\ndeposit;€;{};30.01.2026 9:00\n"
    file: FilePayload = {"name": "bank.csv", "mimeType": "text/csv", "buffer": lines.format("ten").encode("cp1252")}

    def choose_first(script: Route) -> None:
        page.get_by_label("CSV file").set_input_files(file)
        script.continue_()

    page.route("**/static/import.js*", choose_first, times=1)
    page.get_by_label("More").click()
    page.get_by_role("link", name="Import a CSV file").click()
    shown = lines.format("ten").replace("30.01.2026 9:00", "2026-01-30 09:00+01:00")
    expect(page.get_by_label("Lines")).to_have_value(shown)
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_label("Lines")).to_be_focused()
    expect(page.get_by_role("row", name="2 quantity: this is not a number")).to_contain_text("deposit;€;ten;")
    page.get_by_role("link", name="2", exact=True).click()
    assert page.evaluate("getSelection().toString()") == shown.splitlines()[1]
    page.get_by_label("Lines").fill(lines.format("0,5"))
    page.get_by_role("button", name="Import").click()


def test_an_operator_ends_sessions_and_sends_a_failed_mail_again(muster: Muster, chromium: Chromium) -> None:
    """On a phone without JavaScript: find a person, sign their devices out, see why a mail failed, start it again."""
    name = f"Grace {uuid4().hex}"
    account, admin = muster.register(name=name), muster.admin()
    (mail,) = muster.mails(account.email, subject="Confirm")
    wait_for(lambda: muster.sql(FAIL_MAIL, email=account.email), what="the end of its job")
    (muster.outbox / f"{mail['Message-ID'][1:].partition('@')[0]}.eml").unlink()
    phone = {"viewport": {"width": 360, "height": 780}, "java_script_enabled": False}
    with chromium.visitor(muster) as theirs, chromium.visitor(muster, **phone) as operator:
        lost = theirs.sign_in(account.email)
        page = operator.sign_in(admin.email)
        page.locator("summary.person").click()
        page.get_by_role("link", name="Administration").click()
        page.get_by_label("Name or e-mail address").fill(name.upper())
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name=name).click()
        expect(page.get_by_text("Chrome on Linux")).to_be_visible()
        page.get_by_role("button", name="Sign out everywhere").click()
        expect(page.get_by_role("status")).to_have_text("This person was signed out everywhere.")
        lost.reload()
        expect(lost.get_by_role("status")).to_have_text("Your session has ended. Sign in again.")

        row = page.get_by_role("listitem").filter(has_text="E-mail: verification")
        expect(row).to_contain_text("The mail server cannot be reached: gaierror")
        row.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("status")).to_have_text("The job was started again.")
        muster.mails(account.email, subject="Confirm")
        expect(page.get_by_role("listitem").filter(has_text="Job started again")).to_be_visible()

"""Retake the pictures of docs/images: the pages with the data of the demo, in the system's Chromium."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

from playwright.sync_api import Page

from app.core.settings import ROOT, Settings
from scripts.demo import DEMO_EMAIL, DEMO_PASSWORD, load_demo
from scripts.errors import end_cleanly
from tests.support.chromium import Chromium, Visitor, launched
from tests.support.databases import fresh_database, make_templates
from tests.support.servers import Account, Muster, Tokens, wait_for

IMAGES = ROOT / "docs" / "images"
PHONE, DESK = {"width": 360, "height": 780}, {"width": 1280, "height": 860}
TALK = [
    ("Mira", "Has anybody seen the spare capes?"),
    ("Mira", "I need two for tonight."),
    ("Demo", "Third shelf on the left.\nThe catalog is at https://example.com/capes"),
    ("Mira", "Found them, thank you!"),
]
FAULTY = "date,type,figi,quantity\n2026-10-01T09:30:00Z,buy,BBG000B9XRY4,4\n2026-10-02,sell,BBG000B9XRY4,-1\n"


def main() -> None:
    Parser(private=False, description=__doc__).parse_args()
    end_cleanly()
    with tempfile.TemporaryDirectory(prefix="muster-screenshots-") as name, launched() as chromium:
        folder = Path(name)
        make_templates(folder, "")
        with fresh_database("sqlite", folder, "") as url, Muster(url, folder) as muster:
            fill(muster)
            take(muster, chromium)
    print(f"muster: the pictures in {IMAGES.relative_to(ROOT)} have been taken again")


def fill(muster: Muster) -> None:
    """The demo, a statement, and a conversation."""
    with patch.dict(os.environ, muster.settings):
        load_demo(Settings())
    people = {
        "Demo": tokens_of(muster, DEMO_EMAIL, "Pixel 9"),
        "Mira": tokens_of(muster, "mira.demo@example.com", "iPhone"),
    }
    for author, text in TALK:
        body = {"text": text, "room": "lobby"}
        muster.client.post("/api/chat/messages", json=body, headers=people[author].bearer).raise_for_status()
    job = muster.client.post("/api/jobs/statement", json={"from": "2026-01-01"}, headers=people["Demo"].bearer)
    place = job.headers["Location"]
    wait_for(lambda: muster.client.get(place, headers=people["Demo"].bearer).json()["result"], what="the statement")


def tokens_of(muster: Muster, email: str, device: str) -> Tokens:
    return Account(muster, email, DEMO_PASSWORD).sign_in(device=device)


def take(muster: Muster, chromium: Chromium) -> None:
    admin = muster.new_account(name="Robin", role="admin", is_verified=True)
    with chromium.visitor(muster, viewport=DESK) as desk:
        desk.sign_in(DEMO_EMAIL, DEMO_PASSWORD)
        save(desk.open("/operations"), "operations")
        page = desk.open("/operations/import")
        page.get_by_label("Lines", exact=True).fill(FAULTY)
        page.get_by_role("main").get_by_role("button", name="Import").click()
        page.get_by_role("table").wait_for()
        save(page, "import")
        page = desk.open("/api/docs")
        page.get_by_placeholder("Filter by tag").fill("operations")
        page.locator("#operations-auth-register").wait_for(state="hidden")
        page.locator(".filter").evaluate("(filter) => filter.scrollIntoView()")
        save(page, "swagger")
    with chromium.visitor(muster, viewport=PHONE, color_scheme="dark") as phone:
        phone.sign_in(DEMO_EMAIL, DEMO_PASSWORD)
        save(phone.open("/operations"), "operations-phone")
        save(phone.open("/chat"), "chat-phone")
        save(phone.open("/devices"), "devices-phone")
        save(statement(phone), "statement-phone")
    with chromium.visitor(muster, viewport=DESK, color_scheme="dark") as desk:
        desk.sign_in(admin.email)
        page = desk.open("/admin?search=demo")
        page.get_by_role("link", name="Demo").first.click()
        page.wait_for_url("**/admin/people/*")
        save(page, "administration")


def statement(visitor: Visitor) -> Page:
    link = visitor.open("/jobs").get_by_role("link", name="Read").first
    return visitor.open(str(link.get_attribute("href")))


def save(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()

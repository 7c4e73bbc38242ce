"""A real browser: the system's Chromium, headless, driven by Playwright.

Its build without windows is preferred: the tests take 60 % less of the browser's CPU with it than with the one that has
a window, a tab strip and a toolbar to draw.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.support.servers import PASSWORD, Muster

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser")
PATIENCE = 60_000.0  # ms; what is waited for is a condition, this only ends a wait that is lost

expect.set_options(timeout=PATIENCE)

# Chromium reports every response above 399: the tests know which of those they meant. The last message is about scripts
# that Playwright adds, also to a frame that has none.
_EXPECTED = ("Failed to load resource", "WebSocket connection to", "Blocked script execution in")


class Visitor:
    """A person with a browser of their own: its cookies, and what went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.errors: list[str] = []
        context.set_default_timeout(PATIENCE)
        context.on("console", self._note)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.page: Page = context.new_page()

    def _note(self, message: ConsoleMessage) -> None:
        """Keep the console's errors, among which are blocked scripts and styles."""
        if message.type == "error" and not message.text.startswith(_EXPECTED):
            self.errors.append(message.text)

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def sign_in(self, email: str, password: str = PASSWORD, *, path: str = "/sign-in") -> Page:
        """Sign in at `path`, a page that sends signed-out visitors to the sign-in."""
        page = self.open(path)
        page.get_by_label("E-mail").fill(email)
        page.get_by_label("Password").fill(password)
        page.get_by_role("main").get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/sign-in" not in url)  # else what is opened next would cut it short
        return page


class Chromium:
    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    @contextmanager
    def visitor(self, muster: Muster | str, **options: Any) -> Iterator[Visitor]:
        """A new visitor; the block ends with the assertion that nothing went wrong in the browser."""
        context = self._browser.new_context(**options)
        try:
            visitor = Visitor(context, muster if isinstance(muster, str) else muster.url)
            yield visitor
            assert visitor.errors == []
        finally:
            context.close()


@contextmanager
def launched() -> Iterator[Chromium]:
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if path is None:
        pytest.skip("chromium is not installed")
    arguments = ["--disable-gpu"]  # Debian's launcher asks for it, and without one it is imitated
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield Chromium(browser)
        browser.close()

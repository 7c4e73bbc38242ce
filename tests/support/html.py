"""The pages as a browser without JavaScript has them: parsed, and their forms submitted."""

from html.parser import HTMLParser

import httpx

from tests.support.cookie_browser import Browser


class Elements(HTMLParser):
    """A parsed page: its elements, and the values of its fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def value(self, name: str) -> str:
        return next(
            attrs.get("value") or "" for tag, attrs in self.tags if tag == "input" and attrs.get("name") == name
        )


def submit(browser: Browser, path: str, **form: str) -> httpx.Response:
    return browser.call("POST", path, data=form)


# Where no sign-in may lead.
ELSEWHERE = [
    "https://evil.example",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil",
    "http:evil.example",
    "javascript:alert(1)",
    "/\tevil",
    "/a\r\nSet-Cookie: a=b",
    "/\x00",
    "/é",
    " /x",
    "",
]

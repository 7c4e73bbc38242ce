"""docs/asvs.md and SECURITY.md: everything they name exists. And the few requirements that no other test covers."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from app.models.user import User
from tests.support.databases import ROOT
from tests.support.html import Elements
from tests.support.ledgers import OPERATION
from tests.support.servers import Muster

pytestmark = pytest.mark.one_database

ASVS, SECURITY = ROOT / "docs" / "asvs.md", ROOT / "SECURITY.md"
NAMED = re.compile(r"`(\w+/test_\w+\.py)::(test_\w+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
STATUSES = {"met", "not met", "not applicable"}
# Of OWASP/ASVS, 5.0/en: what is marked as level 1 in the chapters that the page names.
LEVEL_1 = (
    "3.2.1 3.2.2 3.3.1 3.4.1 3.4.2 3.5.1 3.5.2 3.5.3 4.1.1 4.4.1 6.1.1 6.2.1 6.2.2 6.2.3 6.2.4 6.2.5 6.2.6 6.2.7 6.2.8 "
    "6.3.1 6.3.2 6.4.1 6.4.2 7.2.1 7.2.2 7.2.3 7.2.4 7.4.1 7.4.2 8.1.1 8.2.1 8.2.2 8.3.1 9.1.1 9.1.2 9.1.3 9.2.1 "
    "10.4.1 10.4.2 10.4.3 10.4.4 10.4.5 11.3.1 11.3.2 11.4.1 12.1.1 12.2.1 12.2.2 14.2.1 14.3.1"
)


class Row(NamedTuple):
    id: str
    requirement: str
    status: str
    how: str
    tests: str


def rows() -> list[Row]:
    lines = [line for line in ASVS.read_text().splitlines() if re.match(r"\| \d", line)]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]


def test_the_table_is_complete_and_in_order() -> None:
    assert " ".join(row.id for row in rows()) == LEVEL_1


def test_each_row_says_how_or_why_not() -> None:
    for row in rows():
        assert row.status in STATUSES, row
        assert row.requirement, row
        assert len(row.how) > 10, row
        assert bool(NAMED.search(row.tests)) or row.status != "met", row
        assert NAMED.sub("", row.tests).strip() == "", row


@pytest.mark.parametrize("page", [ASVS, SECURITY], ids=lambda page: page.name)
def test_everything_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    named = set(NAMED.findall(text))
    assert len(named) > 20
    for file, function in named:
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), f"{file}::{function}"
    assert len(re.findall(r"::test_", text)) == len(NAMED.findall(text)), "each in the form that is checked"
    for link in LINK.findall(text):
        assert (page.parent / link).exists(), link
    assert len(text.splitlines()) <= 170


# ---- 4.1.1, 6.2.6, 6.2.7, 6.4.2, 11.4.1 ----


@pytest.mark.slow
def test_every_kind_of_content_names_its_type_and_charset(muster: Muster) -> None:
    client, bearer = muster.client, muster.new_account().tokens().bearer
    client.post("/api/operations", json=OPERATION, headers=bearer)
    for path, kind in {
        "/": "text/html; charset=utf-8",
        "/nowhere": "text/html; charset=utf-8",
        "/api/docs": "text/html; charset=utf-8",
        "/api/nowhere": "application/problem+json",
        "/api/users/me": "application/json",
        "/api/openapi.json": "application/json",
        "/api/operations": "application/json",
        "/api/operations/export": "text/csv; charset=utf-8",
        "/.well-known/jwks.json": "application/json",
        "/static/muster.css": "text/css; charset=utf-8",
        "/static/chat.js": "text/javascript; charset=utf-8",
        "/static/muster.svg": "image/svg+xml",
    }.items():
        assert client.get(path, headers=bearer).headers["content-type"] == kind, path
    assert client.get("/metrics").headers["content-type"].endswith("; charset=utf-8")
    assert client.get("/static/muster.svg").content.isascii()
    with client.stream("GET", "/api/chat/events", headers=bearer) as stream:
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_password_fields_hide_what_is_typed_and_accept_what_is_pasted(muster: Muster) -> None:
    fields = [
        attrs
        for path in ("/sign-in", "/register", "/reset-password")
        for tag, attrs in Elements(muster.client.get(path).text).tags
        if tag == "input" and "password" in (attrs.get("name") or "")
    ]
    assert len(fields) == 3
    for attrs in fields:
        assert attrs["type"] == "password"
        assert attrs["autocomplete"] in {"current-password", "new-password"}
        assert not attrs.keys() & {"maxlength", "readonly", "disabled"}
    templates = "".join(path.read_text() for path in (ROOT / "app" / "templates").rglob("*.html"))
    scripts = "".join(path.read_text() for path in (ROOT / "app" / "static").glob("*.js"))
    assert "paste" not in templates + scripts


@pytest.mark.slow
def test_there_are_no_hints_or_secret_questions(muster: Muster) -> None:
    openapi = muster.client.get("/api/openapi.json").text
    assert not [name for name in User.model_fields if re.search("hint|question|answer", name)]
    assert not re.search(r"security.question|password.hint", openapi, re.IGNORECASE)


def test_no_broken_hash_is_used() -> None:
    sources = [path for folder in ("app", "scripts") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in sources if re.search(r"\b(md5|sha1|sha_1|MD5|SHA1)\b", path.read_text())]

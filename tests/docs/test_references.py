"""Everything that documents, docstrings and comments mention exists: files, names, settings, tests, links, headings."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.databases import ROOT
from tests.support.references import document, documents, missing, prose, sources

pytestmark = pytest.mark.slow

MISTAKES = {
    "See app/nowhere.py.": "path: app/nowhere.py",
    "As `nowhere.py` says.": "file: nowhere.py",
    "Shown by `accounts/test_passwords.py::test_nothing`.": "test: accounts/test_passwords.py::test_nothing",
    "Start `app.nowhere:app`.": "module: app.nowhere",
    "Start `app.main:nothing_there`.": "name: app.main:nothing_there",
    "Set LIMIT_NOTHING_THERE.": "name: LIMIT_NOTHING_THERE",
    "A route takes `NothingDep`.": "name: NothingDep",
    "It calls `Database.nothing_there()`.": "name: Database.nothing_there()",
    "Pages come from app/dependencies.py `Database.read`.": "name in app/dependencies.py: Database.read",
    "It is `Database.read` in `dependencies.py`.": "name in dependencies.py: Database.read",
    "Decision 4711 says why.": "decision: 4711",
    "[There](nowhere.png).": "file to link to: nowhere.png",
    "[Here](#nothing-here).": "heading to link to: #nothing-here",
    "Read docs/operating.md#nothing-here.": "heading: docs/operating.md#nothing-here",
}
TRUE = """
See `app/core/errors.py`, errors.py, `docs/decisions/*.md` and docs/operating.md#alerts, or `./scripts/serve --demo`.
Routes take `SessionDep`; `Database.read()` and `SECRET_KEYS`, LIMIT_DEFAULT, PT30S and `P30D` exist, as in decision 3.
So does `Side` in app/core/database.py, and `core/database.py` `Database.read()`.
Start `app.main:web`, then [go on](#what-goes-on), as in `docs/test_references.py::test_a_true_mention_is_not_reported`.

## What goes on

    NOTHING_OF_OURS=1 other-program
"""
CHANGELOG = """# Changelog

## Unreleased

- `READ_DATABASE_URL` is gone. Metrics: `muster_readers` is `muster_chat_subscribers`.
- The class is `app.main:Protocol`, formerly of `app.server`.
- `muster_messages_total` is
  `muster_chat_messages_total`; LIMIT_NOTHING_THERE limits it.

## 0.1.0

- `READ_DATABASE_URL` is read by app/server.py.
"""


def test_everything_that_documents_mention_exists() -> None:
    found = [found for path in documents() for said in document(path) for found in missing(said)]
    assert not found, "\n".join(found)


def test_everything_that_docstrings_and_comments_mention_exists() -> None:
    found = [found for path in sources() for said in prose(path) for found in missing(said)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("sentence", MISTAKES)
def test_a_mistake_is_reported_with_its_place(tmp_path: Path, sentence: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{sentence}\n")
    found = [found for said in document(page) for found in missing(said)]
    assert f"page.md:3: no such {MISTAKES[sentence]}" in found


def test_the_changelog_may_name_what_is_gone(tmp_path: Path) -> None:
    page = tmp_path / "CHANGELOG.md"
    page.write_text(CHANGELOG)
    found = [found for said in document(page) for found in missing(said)]
    assert found == [
        "CHANGELOG.md:6: no such name: app.main:Protocol",
        "CHANGELOG.md:8: no such name: LIMIT_NOTHING_THERE",
    ]


def test_the_contract_on_http_names_every_package_of_the_domain() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers, domain = contracts[0]["layers"], contracts[2]["source_modules"]
    packages = {name for layer in layers for name in layer.split(" | ") if (ROOT / "app" / name).is_dir()}
    assert {f"app.{name}" for name in packages - {"http", "pages", "routers"}} == set(domain)


def test_no_test_imports_from_another() -> None:
    """What two of them use is in tests/support: otherwise whoever changes a test has to know all the others."""
    importing = re.compile(r"^\s*(from|import) (tests(?!\.support\b)|\.)", re.MULTILINE)
    found = [
        path.name for path in sources() if path.is_relative_to(ROOT / "tests") and importing.search(path.read_text())
    ]
    assert found == []


def test_a_true_mention_is_not_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TRUE)
    assert [found for said in document(page) for found in missing(said)] == []

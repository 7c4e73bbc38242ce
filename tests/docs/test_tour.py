"""The conversations of the documents, typed into a shell as printed there, against a served instance."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.conversations import conversation, is_as_printed, shown
from tests.support.databases import ROOT
from tests.support.servers import Muster

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

MARK = "---- the next block ----"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("document", "responses"), [("README.md", 1), ("docs/tour.md", 15), ("docs/clients.md", 2)])
def test_each_conversation_goes_as_the_document_says(
    serve: Callable[..., Muster], document: str, responses: int
) -> None:
    muster = serve()
    turns = [
        turn for turn in conversation(ROOT / document) if "https://" not in turn.typed
    ]  # to a host that is not here
    assert len([turn for turn in turns if turn.printed]) >= responses
    script = f"\necho; echo '{MARK}'\n".join(here(turn.typed, muster) for turn in turns)
    environment = {**os.environ, **muster.settings}  # for the scripts of ours that it starts
    shell = subprocess.run(
        ["sh", "-u"], input=script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    said = [line for line in shell.stderr.splitlines() if not re.match(r"(account|client)-\w+ ", line)]
    assert said == []  # beside what the scripts log of the accounts and clients that they make
    for turn, response in zip(turns, shell.stdout.split(f"\n{MARK}\n"), strict=True):
        there = re.sub(r"http://(localhost|127\.0\.0\.1):\d+", "http://localhost:8000", response)
        assert is_as_printed(turn, there), f"{document}:\n{turn.typed}\ngave\n{there}\nand not\n{turn.printed}"


def here(typed: str, muster: Muster) -> str:
    """The block with the addresses of this instance. Mail is sent after the response, so `sleep 1` may be too short."""
    mail_is_there = f"until grep -qs 'reset-password#token=' {muster.outbox}/*.eml; do sleep 0.1; done"
    typed = re.sub(r"^sleep 1$", mail_is_there, typed, flags=re.MULTILINE)
    return typed.replace("http://localhost:8000", muster.url).replace("data/outbox", str(muster.outbox))


def test_blocks_to_type_have_no_comments_which_an_interactive_zsh_takes_for_arguments() -> None:
    typed = [text for document in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) for text in shown("sh", document)]
    assert [text for text in typed if re.search(r"(^|\s)#", text, re.MULTILINE)] == []


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert 150 <= len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_code_in_the_readme_is_quoted_from_ours() -> None:
    excerpts = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    code = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    assert excerpts
    for function in [function for excerpt in excerpts for function in excerpt.split("\n\n\n")]:
        assert function.strip() in code, function


@pytest.mark.parametrize("decision", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda path: path.name[:4])
def test_each_decision_is_short_and_opens_with_a_summary(decision: Path) -> None:
    lines = decision.read_text().splitlines()
    assert re.match(rf"# {decision.name[:4]}: ", lines[0])
    assert re.match(r"Status: \w+, \d{4}-\d\d-\d\d", lines[2])
    assert [line[:2] for line in lines[3:8]] == ["", "> ", "> ", "> ", ""]
    assert [line for line in lines if line.startswith("## ")] == ["## Context", "## Decision", "## Consequences"]
    assert len(lines) < 40 or "Longer than the other decisions" in lines[2]

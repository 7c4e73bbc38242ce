"""The first conversation in README.md, typed into a shell as it stands there, against a served instance."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.support.databases import ROOT
from tests.support.readme import conversation, is_as_shown
from tests.support.servers import Muster

MARK = "---- the next block ----"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_first_conversation_goes_as_the_readme_says(serve: Callable[..., Muster]) -> None:
    muster, turns = serve(), conversation()
    assert len(turns) > 3
    script = f"\necho; echo '{MARK}'\n".join(here(turn.typed, muster) for turn in turns)
    environment = {**os.environ, **muster.settings}  # should it start a script of ours
    shell = subprocess.run(
        ["sh", "-u"], input=script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert shell.stderr == ""
    printed = shell.stdout.split(f"\n{MARK}\n")
    for turn, answer in zip(turns, printed, strict=True):
        assert is_as_shown(turn, answer), f"{turn.typed}\ngave\n{answer}\nand not\n{turn.answer}"


def here(typed: str, muster: Muster) -> str:
    """With the addresses of this instance. Mail goes out after the answer: a busy machine needs more than `sleep 1`."""
    mail_is_there = f"until grep -qs 'reset-password#token=' {muster.outbox}/*.eml; do sleep 0.1; done"
    typed = re.sub(r"^sleep 1$", mail_is_there, typed, flags=re.MULTILINE)
    return typed.replace("http://localhost:8000", muster.url).replace("data/outbox", str(muster.outbox))

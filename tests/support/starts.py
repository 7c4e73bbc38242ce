"""scripts/start.py, run as a process."""

import os
import re

from tests.support.databases import SECRET_KEY
from tests.support.processes import fork_module
from tests.support.servers import free_port


def environment(**settings: str) -> dict[str, str]:
    """The environment of the tests, which has no setting of Muster but SECRET_KEYS, plus these settings."""
    return {**os.environ, **settings}


def expect_refusal(*options: str, **settings: str) -> str:
    """The one line that a refused start prints before it ends."""
    settings = {"ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY, "PORT": str(free_port()), **settings}
    done = fork_module("scripts.start", *options, environment=environment(**settings))
    assert done.returncode != 0
    assert done.stdout == ""
    assert re.fullmatch(r"muster: [^\n]+\n", done.stderr), done.stderr
    return done.stderr

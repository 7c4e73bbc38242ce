"""One run of schemathesis against a running instance, as a caller with one role."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.databases import ROOT
from tests.support.servers import Muster

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
NEW_CALLER = "(a new caller)"

# No token expires during a run.
SETTINGS = {"ACCESS_TOKEN_TTL": "P1D", "REFRESH_GRACE": "P1D"}


@dataclass(frozen=True)
class Outcome:
    """The result of a run; `responses` counts the responses of each operation by status."""

    is_clean: bool
    report: str
    responses: dict[str, Counter[int]]

    @property
    def requests(self) -> int:
        return sum(sum(statuses.values()) for name, statuses in self.responses.items() if name != NEW_CALLER)

    def succeeded(self) -> set[str]:
        """The operations that succeeded at least once."""
        return {name for name, statuses in self.responses.items() if any(200 <= status < 300 for status in statuses)}


def fuzz(
    muster: Muster,
    role: str,
    *,
    seed: int,
    max_examples: int,
    max_seconds: int | None = None,
    phases: str | None = None,
) -> Outcome:
    """Run all checks in the phases named, or in all phases. The same seed sends the same requests, unless `max_seconds`
    ends the run earlier."""
    folder = muster.folder / f"fuzz-{role}-{seed}"
    folder.mkdir()
    # Not its console script: some systems limit the length of the first line, which names the interpreter.
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
    command += [f"{muster.url}/api/openapi.json", "--checks", "all", "--no-color"]
    command += ["--seed", str(seed), "--max-examples", str(max_examples)]
    if max_seconds is not None:
        command += ["--max-time", str(max_seconds)]
    if phases is not None:
        command += ["--phases", phases]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis"),  # its tables of Unicode take four seconds to make
        "SCHEMATHESIS_HOOKS": "scripts.fuzzing.hooks",
        "FUZZ_URL": muster.url,
        "FUZZ_DATABASE_URL": muster.database_url.replace("postgresql://", "postgresql+psycopg://", 1),
        "FUZZ_ROLE": role,
        "FUZZ_TALLY": str(folder / "tally.json"),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    report = "\n".join(line for line in (done.stdout + done.stderr).splitlines() if line.strip())
    tally = json.loads((folder / "tally.json").read_text())
    responses = {name: Counter({int(status): n for status, n in counts.items()}) for name, counts in tally.items()}
    return Outcome(done.returncode == 0, report, responses)

"""Has a pin of the lock files a known vulnerability? pip-audit asks PyPI, and one that has fails the check.

A closed network stops no build: what could not be audited is counted, in one line. The npm packages of
tests/support/node are left out: no user's request ever reaches them.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from app.core.settings import ROOT
from scripts.check_locks import read

LOCKS = ("requirements.lock", "requirements-dev.lock")
IGNORED = {
    # ecdsa's signatures leak through their timing, and its makers will not mend it. python-jose asks for ecdsa and uses
    # cryptography instead where that is installed, as here: nothing of ours imports ecdsa: tests/scripts/test_audit.py.
    "CVE-2024-23342",
}
COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner=off"),
    *("--format=json", *(f"--requirement={lock}" for lock in LOCKS)),
    *(f"--ignore-vuln={known}" for known in sorted(IGNORED)),
)
TIMEOUT = 60  # seconds for all of it
# How the last line of pip-audit begins, or what is in it, when nobody answers or answers nonsense.
UNREACHABLE = ("requests.exceptions.", "urllib3.exceptions.", "pip_audit._service.", "network may be blocking")


class Audit(NamedTuple):
    audited: int
    skipped: Sequence[str]  # why, a sentence a pin
    vulnerable: Sequence[str]  # a line each: package, version, ids, fixed versions


class Unreachable(Exception):
    """Nobody could be asked; carries why."""


def main() -> None:
    try:
        audit = judge(ask(COMMAND, TIMEOUT))
    except Unreachable as reason:
        pins = sum(pin.applies for pin in read(ROOT / LOCKS[-1]))
        print(f"audit: NONE of {pins} pins was audited: {reason}")
        return
    if audit.skipped:
        pins = audit.audited + len(audit.skipped)
        print(f"audit: {len(audit.skipped)} of {pins} pins were NOT audited, such as: {audit.skipped[0]}")
    if audit.vulnerable:
        sys.exit("\n".join(audit.vulnerable))
    if audit.audited:
        print(f"audit: {audit.audited} pins have no known vulnerability")


def ask(command: Sequence[str], seconds: float) -> str:
    """The report of pip-audit. Unreachable if there is none; another failure of the tool ends the check."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise Unreachable(f"no answer within {seconds:g} s") from None
    if done.stdout.startswith("{"):
        return done.stdout
    told = done.stderr.strip()
    last = told.rpartition("\n")[2]
    if any(sign in last for sign in UNREACHABLE):
        raise Unreachable(last[:160])
    sys.exit(f"audit: pip-audit failed ({done.returncode})\n{told}")


def judge(report: str) -> Audit:
    pins = json.loads(report)["dependencies"]
    skipped = [pin["skip_reason"] for pin in pins if "skip_reason" in pin]
    vulnerable = [
        f"audit: {pin['name']} {pin['version']}: {', '.join([known['id'], *known['aliases']])},"
        f" fixed in {', '.join(known['fix_versions']) or 'no release yet'}"
        for pin in pins
        for known in pin.get("vulns", ())
    ]
    return Audit(len(pins) - len(skipped), skipped, vulnerable)


if __name__ == "__main__":
    main()

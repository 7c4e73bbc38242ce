"""Fail if pip-audit, which queries PyPI, knows a vulnerability in one of the versions that the lock files pin.

Without a network the check passes, with one line that counts the pins that were not audited. The packages of the
tests' Node programs, of the generators of clients and of the benchmarks' peers are left out, since no request to the
service ever reaches them.
"""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from app.core.settings import ROOT
from scripts.check_locks import read

LOCKS = ("requirements.lock", "requirements-dev.lock")
IGNORED = {
    # The timing of ecdsa's signatures leaks the key, and its authors will not fix that. python-jose depends on ecdsa
    # but uses cryptography where that is installed, as here: nothing imports ecdsa (tests/scripts/test_start.py).
    "CVE-2024-23342"
}
COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner=off"),
    *("--format=json", *(f"--requirement={lock}" for lock in LOCKS)),
    *(f"--ignore-vuln={known}" for known in sorted(IGNORED)),
)
# pip-audit trusts Mozilla's certificates alone, pip the system's too: a company's registry may have one of its own.
_PATHS = ssl.get_default_verify_paths()
CERTIFICATES = {"REQUESTS_CA_BUNDLE": found} if (found := _PATHS.cafile or _PATHS.capath) else {}
TIMEOUT = 60  # seconds for the whole audit
# What the last line of pip-audit contains when PyPI cannot be reached, or a proxy answers instead.
UNREACHABLE = ("requests.exceptions.", "urllib3.exceptions.", "pip_audit._service.", "network may be blocking")


class Audit(NamedTuple):
    audited: int
    skipped: Sequence[str]  # a sentence for each pin
    vulnerable: Sequence[str]  # a line each: package, version, ids, fixed versions


class Unreachable(Exception):
    """PyPI could not be reached; the message says why."""


def main() -> None:
    try:
        audit = parse_report(run_pip_audit(COMMAND, TIMEOUT))
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


def run_pip_audit(command: Sequence[str], seconds: float) -> str:
    """The report of pip-audit, or Unreachable. Any other failure of the tool fails the check."""
    try:
        environment = CERTIFICATES | os.environ
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(f"no answer within {seconds:g} s") from None
    if done.stdout.startswith("{"):
        return done.stdout
    output = done.stderr.strip()
    last = output.rpartition("\n")[2]
    if any(sign in last for sign in UNREACHABLE):
        raise Unreachable(last[:160])
    sys.exit(f"audit: pip-audit failed ({done.returncode})\n{output}")


def parse_report(report: str) -> Audit:
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

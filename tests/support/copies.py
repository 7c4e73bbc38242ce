"""Copies of the project, for tests that change its files, and the recipes of docs/extending.md to carry out in them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.databases import ROOT

FOLDERS = ("app", "docker", "docs", "migrations", "scripts", "tests")
STAMP = "installed.lock"  # scripts/venv: what .venv is up to date with
GUIDE = ROOT / "docs" / "extending.md"


class Copy:
    """The project's files in a folder of their own, with the installed packages of the original."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # With the byte code of what stays as it is, but not what another process is about to rename.
        skipped = shutil.ignore_patterns("node_modules", "*.pyc.*")
        for name in FOLDERS:
            shutil.copytree(ROOT / name, root / name, ignore=skipped)
        for path in ROOT.iterdir():
            if path.is_file():
                shutil.copy(path, root)
        if (cache := ROOT / ".mypy_cache").exists():  # a tenth of the time
            shutil.copytree(cache, root / cache.name)
        # The installed packages, but a stamp of its own: a script of a renamed copy, whose lock files name another
        # project, would otherwise install them again for the original too.
        (root / ".venv").mkdir()
        for path in (ROOT / ".venv").iterdir():
            if path.name != STAMP:
                (root / ".venv" / path.name).symlink_to(path)

    def run(self, module: str, *arguments: str | Path) -> str:
        """Run a Python module in the copy, which has to succeed. Returns what it prints."""
        return self._run([sys.executable, "-m", module, *arguments])

    def shell(self, script: str) -> str:
        return self._run(["sh", "-eu", "-c", script])

    def patch(self, diff: str) -> None:
        """Apply a diff whose hunks are found by their text, so that the document needs no line numbers."""
        for file in re.split(r"^--- .*\n\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
            name, *hunks = re.split(r"^@@.*\n", file, flags=re.MULTILINE)
            path = self.root / name.strip()
            for hunk in hunks:
                lines = hunk.splitlines(keepends=True)
                old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
                text = path.read_text() if path.exists() else ""
                assert not text or text.count(old) == 1, f"{name.strip()} has this {text.count(old)} times:\n{old}"
                path.write_text(text.replace(old, new) if text else new)

    def check(self, *files: str | Path) -> None:
        """Check the form of the whole copy as ./scripts/check does, and the types of these files."""
        self.check_form()
        self.run("mypy", "--no-error-summary", *files)

    def check_form(self) -> None:
        self.run("ruff", "format", "--check", "--quiet", ".")
        self.run("ruff", "check", "--quiet", ".")

    def test(self, *arguments: str) -> None:
        shutil.copy(self.root / "requirements-dev.lock", self.root / ".venv" / STAMP)
        self.run("pytest", "--quiet", "-n0", "--quick", *arguments)

    def _run(self, command: list[str | Path]) -> str:
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def recipe(heading: str, language: str) -> str:
    """The code blocks in this language in a section of docs/extending.md, one after the other."""
    _, found, section = GUIDE.read_text().partition(f"\n## {heading}\n")
    assert found, f"{GUIDE.name} has no section {heading!r}"
    blocks: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    assert blocks, f"{heading!r} has no {language}"
    return "".join(blocks)

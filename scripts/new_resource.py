"""Write a resource whose rows have owners: model, router, migration and test, as ./scripts/new_resource does."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import ast
import builtins
import re
import subprocess
import sys
from argparse import Namespace
from keyword import kwlist
from pathlib import Path
from string import Template
from typing import TypeAlias

from app.core.scopes import SCOPES
from app.core.settings import ROOT
from app.models.base import all_tables

Files: TypeAlias = dict[Path, str]  # the text of each file; none is written until all are known

TEMPLATES = Path(__file__).with_name("resource_template")
MAIN = ROOT / "app" / "main.py"
WORD = re.compile(r"[a-z]{2,18}")


def main() -> None:
    options = parse()
    names, scope = options.plural, options.scope
    files = new_files(options.name, names, scope)
    test = [*files][-1].relative_to(ROOT)
    add_router(files, names)
    if scope not in SCOPES:
        add_scope(files, scope, names)
    if scope != names:
        name_scopes(files, scope, names)
    for path, text in files.items():
        path.write_text(text)
    for command in (["check", "--select", "I", "--fix"], ["format"]):
        run("ruff", *command, "--quiet", *files)
    print("\n".join(f"Written: {path.relative_to(ROOT)}" for path in files), flush=True)
    run("scripts.migrate", f"add {names}")
    print(f"Then: ./scripts/test {test}, and docs/extending.md for more fields")


def parse() -> Namespace:
    parser = Parser(private=False, prog="./scripts/new_resource", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="one word in the singular, such as note")
    parser.add_argument("--scope", help="the scope that its routes need, created if it is new (default: the plural)")
    parser.add_argument("--plural", metavar="NAMES", help="if it is not NAME with an s, such as stories")
    options = parser.parse_args()
    options.plural = options.plural or f"{options.name}s"
    options.scope = options.scope or options.plural
    for word in (options.name, options.plural):
        if not WORD.fullmatch(word):
            parser.error(f"{word}: use one word of at most 18 lowercase letters")
    if found := taken() & {options.name, options.name.capitalize(), options.plural}:
        parser.error(f"{found.pop().lower()}: Python, an import, a table or an address has this name: use another word")
    if not re.fullmatch(r"[a-z]+(:[a-z]+)?", options.scope):
        parser.error(f"--scope: {options.scope}: use lowercase letters, such as notes")
    return options


def run(*command: str | Path) -> None:
    """Run a module, which says itself what is wrong if it fails."""
    if status := subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode:
        sys.exit(status)


# ---- What the files say ----


def new_files(name: str, names: str, scope: str) -> Files:
    files = {
        ROOT / "app" / "models" / f"{name}.py": fill("model", name, names, scope),
        ROOT / "app" / "routers" / f"{names}.py": fill("router", name, names, scope),
        ROOT / "tests" / "resources" / f"test_{names}.py": fill("test", name, names, scope),
    }
    if there := [path for path in files if path.exists()]:
        sys.exit(f"muster: {there[0].relative_to(ROOT)} exists: use another word, or delete the file")
    return files


def fill(kind: str, name: str, names: str, scope: str) -> str:
    words = {"name": name, "names": names, "Name": name.capitalize(), "Names": names.capitalize(), "scope": scope}
    words["a"] = "an" if name[0] in "aeiou" else "a"
    return Template((TEMPLATES / f"{kind}.py.txt").read_text()).substitute(words)


# ---- Names that a resource cannot have ----


def taken() -> set[str]:
    """Names that would clash: those in the new files and in create_api(), of tables and addresses, and Python's own."""
    listing = MAIN.read_text().partition("\ndef create_pages")[0]
    used = identifiers(fill("model", "x", "x", "x"), fill("router", "x", "x", "x"), listing)
    app = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    addresses = set(re.findall(r'"/api/(\w+)', app))
    return used | addresses | {table.name for table in all_tables()} | {*kwlist, *dir(builtins)}


def identifiers(*sources: str) -> set[str]:
    """The names that the sources import, define or read."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    imported = {node.name for node in nodes if isinstance(node, ast.alias)}
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return imported | parameters | {node.id for node in nodes if isinstance(node, ast.Name)}


# ---- Where a resource is entered ----


def add_router(files: Files, names: str) -> None:
    insert(files, MAIN, "from app.routers import (\n", "", f"    {names},\n")
    insert(files, MAIN, "    modules += [", "", f"{names}, ")


def add_scope(files: Files, scope: str, names: str) -> None:
    """Add the scope to SCOPES and to the role `user`; admins have every scope."""
    path = ROOT / "app" / "core" / "scopes.py"
    says = f'    "{scope}": "Read and change your own {names}",\n'
    insert(files, path, "SCOPES: dict[str, str] = {\n", r"(    .*\n)*", says)
    insert(files, path, "    USER: [", r'[^\]]*"', f', "{scope}"')


def name_scopes(files: Files, scope: str, names: str) -> None:
    """Tell the test of the routes that this resource is opened by the scope of another one."""
    path = ROOT / "tests" / "http" / "test_route_table.py"
    insert(files, path, "SCOPES_OF = {", "", f'"{names}": "{scope.partition(":")[0]}", ')


def insert(files: Files, path: Path, start: str, rest: str, text: str) -> None:
    """Insert the text after `start` and what follows it that matches `rest`, which may be on one line or on several."""
    old = files.get(path) or path.read_text()
    found = re.search(re.escape(start) + rest, old)
    if not found:
        place = f"{path.relative_to(ROOT)} no longer has {start.strip()!r}"
        sys.exit(f"muster: {place}, so nothing is written: docs/extending.md says how to add a resource by hand")
    files[path] = old[: found.end()] + text + old[found.end() :]


if __name__ == "__main__":
    main()

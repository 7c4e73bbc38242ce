"""Write a resource whose rows have owners: model, router, migration and test, as ./scripts/new_resource does."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import re
import subprocess
import sys
from argparse import Namespace
from keyword import iskeyword
from pathlib import Path
from string import Template

from app.core.scopes import SCOPES
from app.core.settings import ROOT

TEMPLATES = Path(__file__).with_name("resource_template")
WORD = re.compile(r"[a-z]{2,18}")


def main() -> None:
    options = parse()
    name, names, scope = options.name, options.plural, options.scope
    new = {
        "model": ROOT / "app" / "models" / f"{name}.py",
        "router": ROOT / "app" / "routers" / f"{names}.py",
        "test": ROOT / "tests" / "resources" / f"test_{names}.py",
    }
    if there := [path for path in new.values() if path.exists()]:
        sys.exit(f"muster: {there[0].relative_to(ROOT)} exists")
    words = {"name": name, "names": names, "Name": name.capitalize(), "Names": names.capitalize(), "scope": scope}
    words["a"] = "an" if name[0] in "aeiou" else "a"
    for kind, path in new.items():
        path.write_text(Template((TEMPLATES / f"{kind}.py.txt").read_text()).substitute(words))
    changed = [*new.values(), add_router(names)]
    if scope not in SCOPES:
        changed.append(add_scope(scope, names))
    if scope != names:
        changed.append(name_scopes(scope, names))
    for command in (["check", "--select", "I", "--fix"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", *changed], cwd=ROOT, check=True)
    print("\n".join(f"Written: {path.relative_to(ROOT)}" for path in changed), flush=True)
    subprocess.run([sys.executable, "-m", "scripts.migrate", f"add {names}"], cwd=ROOT, check=True)
    print(f"Then: ./scripts/test {new['test'].relative_to(ROOT)}, and docs/extending.md for more fields")


def parse() -> Namespace:
    parser = Parser(prog="./scripts/new_resource", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="one word in the singular, such as note")
    parser.add_argument("--scope", help="the scope that its routes need, created if it is new (default: the plural)")
    parser.add_argument("--plural", metavar="NAMES", help="if it is not NAME with an s, such as stories")
    options = parser.parse_args()
    options.plural = options.plural or f"{options.name}s"
    options.scope = options.scope or options.plural
    for word in (options.name, options.plural):
        if not WORD.fullmatch(word) or iskeyword(word):
            parser.error(f"{word}: use one word of at most 18 lowercase letters that is not a Python keyword")
    if not re.fullmatch(r"[a-z]+(:[a-z]+)?", options.scope):
        parser.error(f"--scope: {options.scope}: use lowercase letters, such as notes")
    return options


# ---- Where a resource is entered ----


def add_router(names: str) -> Path:
    path = ROOT / "app" / "main.py"
    insert(path, "from app.routers import (\n", f"    {names},\n")
    return insert(path, "    routers = [\n", f"        {names}.router,\n", last="    ]\n")


def add_scope(scope: str, names: str) -> Path:
    """Add the scope to SCOPES and to the role `user`; admins have every scope."""
    path = ROOT / "app" / "core" / "scopes.py"
    insert(path, "SCOPES: dict[str, str] = {\n", f'    "{scope}": "Read and change your own {names}",\n', last="}\n")
    return insert(path, "    USER: [", f', "{scope}"', last="]")


def name_scopes(scope: str, names: str) -> Path:
    """Tell the test of the routes that this resource is opened by the scope of another one."""
    path = ROOT / "tests" / "http" / "test_route_table.py"
    return insert(path, "SCOPES_OF = {", f'"{names}": "{scope.partition(":")[0]}", ')


def insert(path: Path, start: str, text: str, *, last: str = "") -> Path:
    """Insert the text after `start`, or in front of the first `last` behind it."""
    before, found, after = path.read_text().partition(start)
    if not found:
        sys.exit(f"muster: {path.relative_to(ROOT)} no longer has {start.strip()!r}: add {text.strip()!r} by hand")
    inside, end, rest = after.partition(last) if last else ("", "", after)
    path.write_text(before + found + inside + text + end + rest)
    return path


if __name__ == "__main__":
    main()

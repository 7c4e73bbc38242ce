"""Finds what documents, docstrings and comments mention and reports what does not exist: files, names, settings, links.

The rules are precise, so that a report is always a mistake. A path begins with a directory of ours or ends in .py or
.md. A setting or a constant is written in capitals with an underscore. Any other name is a code span that is one
identifier, such as `SessionDep` or `Database.read`; it exists if code of ours contains it, not only prose or a test.
Where a line says in which file a name is, such as `Side` in `app/core/database.py`, that file must contain it.

The changelog names what no longer exists. About the next release it says so, as in "X is gone", "X is Y" or "formerly
X", and is checked without that. About releases that are out, only its links are checked.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tests.support.databases import ROOT

DIRECTORIES = ("app", "docker", "docs", "migrations", "scripts", "tests")
_GENERATED = {".coverage", "__pycache__", "node_modules", "vendor", "swagger", "versions"}
_TEXT = {"", ".css", ".html", ".ini", ".js", ".json", ".mjs", ".mako", ".sh", ".toml", ".txt", ".yaml", ".yml"}
# Names of other projects that our documents mention and our code does not.
FOREIGN = {
    "PgBouncer": {"ignore_startup_parameters", "max_prepared_statements"},
    "Docker Compose and Render": {"depends_on", "envVarKey", "fromService"},
    "JOSE": {"jku", "x5u"},
    "Playwright": {"wait_for_function"},
    "Redis": {"LLEN"},
    "Swift and Kotlin": {"ASWebAuthenticationSession", "Codable", "ISO8601DateFormatter", "OffsetDateTime"},
    "systemd": {"XDG_RUNTIME_DIR"},
    "RFC 6749": {"invalid_scope", "unsupported_grant_type"},  # made from the names of the errors
    "the shell, the linter, a header": {"curl", "noqa", "nosniff"},
}

_PATH = re.compile(
    rf"(?<![\w./:-])(?:\./)?((?:{'|'.join(DIRECTORIES)})/[\w.*/-]*[\w*/])(?:#([\w-]+))?(?![\w/]|\.\w|::|…)"
)
_FILE = re.compile(r"(?<![\w./*-])([\w-]+(?:/[\w-]+)*\.(?:py|md))\b(?!::)")
_TEST = re.compile(r"([\w/]+\.py)::(test_\w+)")
_CONSTANT = re.compile(r"(?<![\w-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?!\w)")
_SPAN = re.compile(r"`([^`\n]+)`")
_NAME = re.compile(r"(?!\d|PT?\d)(?:\w+\.)*\w+(?:\(\))?")  # neither a number nor a duration such as PT30S
_PLACE, _PLACED = r"`?((?:[\w-]+/)*[\w-]+\.py)`?", r"`((?:\w+\.)*\w+)(?:\(\))?`"
_NAME_IN_FILE = re.compile(rf"{_PLACE} {_PLACED}|{_PLACED} in {_PLACE}")
_MODULE = re.compile(r"(?<![\w/.])(app(?:\.\w+)*\.\w+)(?::(\w+))?(?= |`|$|,|\))")
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")
_WRITTEN_BY_THE_READER = re.compile(r"(\b|_)notes?\.py$|\bNote[A-Z]\w+$")
_DECISION = re.compile(r"\b[Dd]ecision (\d{1,4})\b")
_GONE = re.compile(r"`[^`]+`(?= is(?: gone| `|$))|formerly .*")


@dataclass(frozen=True)
class Prose:
    """A line of a document, of a docstring or of a comment.

    `is_code`: in a code block, where names may be foreign. `is_past`: about a release that is out.
    """

    path: Path
    line: int
    text: str
    is_code: bool = False
    is_past: bool = False


# ---- Texts that mention something ----


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(path for path in files() if path.suffix == ".md")])


def sources() -> list[Path]:
    return [path for path in files() if path.suffix == ".py"]


def document(path: Path) -> Iterator[Prose]:
    """The lines of a document except its diffs, which tests/scripts/test_extending.py applies."""
    block, is_past = "", False
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        if text.startswith("```"):
            block = "" if block else text
        is_past |= re.match(r"## \d", text) is not None
        if block != "```diff":
            yield Prose(path, number, text, is_code=bool(block) or text.startswith("    "), is_past=is_past)


def prose(path: Path) -> Iterator[Prose]:
    """The docstrings and comments of a Python file."""
    parsed = _parsed(path)
    for line, comment in parsed.comments:
        yield Prose(path, line, comment)
    for line, docstring in parsed.docstrings:
        for offset, text in enumerate(docstring.splitlines()):
            yield Prose(path, line + offset, text)


@dataclass(frozen=True)
class _Parsed:
    """A Python file: docstrings and comments with their lines, and the words of everything else.

    The strings of a test are left out: it may well send a setting or a field that does not exist.
    """

    docstrings: list[tuple[int, str]]
    comments: list[tuple[int, str]]
    words: set[str]


@cache
def _parsed(path: Path) -> _Parsed:
    code = path.read_text()
    tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    nodes = list(ast.walk(ast.parse(code)))
    strings = [node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    bare = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    names = {token.string for token in tokens if token.type == tokenize.NAME}
    used = [] if path.name.startswith("test_") else [str(node.value) for node in strings if id(node) not in bare]
    return _Parsed(
        docstrings=[(node.lineno, str(node.value)) for node in strings if id(node) in bare],
        comments=[(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT],
        words=names.union(*(re.findall(r"\w+", string) for string in used)),
    )


# ---- Files and names that exist ----


@cache
def files() -> list[Path]:
    """The files of the project's directories, without generated and vendored ones."""
    found = [path for name in DIRECTORIES for path in (ROOT / name).rglob("*") if path.is_file()]
    return sorted(path for path in found if not _GENERATED.intersection(path.relative_to(ROOT).parts))


@cache
def tails() -> set[str]:
    """Each file by the end of its path: with all directories, with some of them, and alone."""
    named = [path.relative_to(ROOT).parts for path in [*files(), *ROOT.glob("*.md"), *ROOT.glob("migrations/**/*.py")]]
    return {"/".join(parts[start:]) for parts in named for start in range(len(parts))}


@cache
def words() -> set[str]:
    """The identifiers of the code, the words in its strings, and those of other files that are not documents."""
    found = {name for names in FOREIGN.values() for name in names}
    others = (path for path in ROOT.iterdir() if path.is_file() and path.name not in _GENERATED)
    for path in [*files(), *others]:
        if path.suffix == ".py":
            found |= _parsed(path).words | {path.stem}
        elif path.suffix in _TEXT:
            found |= set(re.findall(r"\w+", path.read_text()))
    return found


@cache
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def _functions(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (\w+)\(", path.read_text(), re.MULTILINE))


# ---- Mentions of something missing ----


def missing(said: Prose) -> Iterator[str]:
    """The things that this line mentions but that do not exist, with their place: `README.md:12: no such file: …`."""
    rules = [_paths, _modules, _decisions, _links]
    rules += [] if said.is_code else [_names, _names_in_files]
    if said.path.name == "CHANGELOG.md":
        said = replace(said, text=_GONE.sub("", said.text))
        rules = [_links] if said.is_past else rules
    place = said.path.relative_to(ROOT) if said.path.is_relative_to(ROOT) else said.path.name
    for rule in rules:
        for what in rule(said):
            if not (said.path.name == "extending.md" and _WRITTEN_BY_THE_READER.search(what)):
                yield f"{place}:{said.line}: no such {what}"


def _paths(said: Prose) -> Iterator[str]:
    for path, anchor in _PATH.findall(said.text):
        if not any(ROOT.glob(path)):
            yield f"path: {path}"
        elif anchor and anchor not in anchors(ROOT / path):
            yield f"heading: {path}#{anchor}"
    for file in _FILE.findall(said.text):
        if file not in tails():
            yield f"file: {file}"
    for file, function in _TEST.findall(said.text):
        if not any(function in _functions(path) for path in files() if path.match(file)):
            yield f"test: {file}::{function}"


def _modules(said: Prose) -> Iterator[str]:
    for module, name in _MODULE.findall(said.text):
        *packages, last = module.split(".")
        file = ROOT.joinpath(*packages, f"{last}.py")
        if not (file.exists() or ROOT.joinpath(*packages, last).is_dir()):
            yield f"module: {module}"
        elif name and name not in _parsed(file).words:
            yield f"name: {module}:{name}"


def _decisions(said: Prose) -> Iterator[str]:
    for number in _DECISION.findall(said.text):
        if not any(ROOT.glob(f"docs/decisions/{int(number):04}-*.md")):
            yield f"decision: {number}"


def _links(said: Prose) -> Iterator[str]:
    for target, anchor in _LINK.findall(said.text) if said.path.suffix == ".md" else []:
        path = (said.path.parent / target).resolve() if target else said.path
        if not path.exists():
            yield f"file to link to: {target}"
        elif anchor and anchor not in anchors(path):
            yield f"heading to link to: {target}#{anchor}"


def _names(said: Prose) -> Iterator[str]:
    spans = [span for span in _SPAN.findall(said.text) if _NAME.fullmatch(span) and not _FILE.fullmatch(span)]
    for name in dict.fromkeys([*_CONSTANT.findall(said.text), *spans]):
        if any(part not in words() and part.lower() not in words() for part in name.removesuffix("()").split(".")):
            yield f"name: {name}"


def _names_in_files(said: Prose) -> Iterator[str]:
    for before, name_after, name_before, after in _NAME_IN_FILE.findall(said.text):
        file, name = before or after, name_before or name_after
        own = set().union(*(_parsed(path).words for path in sources() if path.match(file)))
        if not own.issuperset(name.split(".")):
            yield f"name in {file}: {name}"

"""Clients that third-party generators make from the OpenAPI description: they compile, and do what an app does."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

import scripts.generators.__main__ as clients
from scripts.generators.tools import NODE, python_tools
from tests.support.commands import fork
from tests.support.conversations import shown
from tests.support.databases import ROOT
from tests.support.servers import PASSWORD, Muster, wait_for

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

PROGRAMS = ROOT / "tests" / "support" / "clients"
# What openapi-generator says whatever it is told: docs/clients.md.
NOISE = ("OpenAPI 3.1 support is still in beta", "The media-type 'application/octet-stream'")


def made(language: str, folder: Path) -> tuple[Path, str]:
    """The folder of a new client, and what its generator said."""
    done = fork("clients", "--out", folder / language, language)
    assert done.returncode == 0, done.stderr
    return folder / language, done.stderr


def run(command: list[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_client_whose_script_is_ended_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.generators", str(tmp_path), "typescript", "--out", str(tmp_path / "new")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(tmp_path.iterdir()), what="the draft")
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "muster: stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_typescript_clients_compile_and_do_what_an_app_does(muster: Muster, tmp_path: Path) -> None:
    """Both generated clients, and the code that docs/clients.md shows."""
    client, _ = made("typescript", tmp_path)
    shutil.copytree(PROGRAMS, client, ignore=shutil.ignore_patterns("*.py"), dirs_exist_ok=True)
    sign_in, *sync = shown("ts")
    (client / "sign_in.ts").write_text(f'/// <reference lib="dom" />\n{sign_in}')
    (client / "muster.ts").write_text("".join(sync))
    run([NODE, "node_modules/typescript/bin/tsc"], client)
    for program in ("openapi_fetch", "hey_api"):
        run([NODE, f"dist/{program}.js", muster.url, f"{uuid4().hex}@example.com"], client)


def test_the_python_client_does_what_an_app_does(muster: Muster, tmp_path: Path) -> None:
    """And what docs/clients.md shows."""
    client, _ = made("python", tmp_path)
    shutil.copy(PROGRAMS / "openapi_python.py", client / "python")
    python = python_tools() / "bin" / "python"
    known = f"url, email, password = {(muster.url, muster.new_account().email, PASSWORD)}"
    [documented] = shown("python")
    (client / "python" / "documented.py").write_text(f"{known}\n{documented}assert operations == []\n")
    run([python, "documented.py"], client / "python")
    run([python, "openapi_python.py", muster.url, f"{uuid4().hex}@example.com"], client / "python")


def test_a_folder_with_other_files_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.md").touch()
    for out, why in [("mine", "mine has files that are not of a client"), ("mine/thesis.md/x", "thesis.md is a file")]:
        done = fork("clients", "--out", out, "python", folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("muster: ")
        assert why in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.md"]


def test_a_client_is_replaced_once_the_new_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "client"
    out.mkdir()

    def make(said: str) -> list[str]:
        def generate(language: str, new: Path) -> str:
            (new / f"{language}-{said}").touch()
            return sys.exit(said) if said == "failed" else said

        monkeypatch.setattr(clients, "generate", generate)
        with suppress(SystemExit):
            clients.main()
        assert list(tmp_path.iterdir()) == [out]
        return sorted(path.name for path in out.glob("python-*"))

    monkeypatch.setattr("sys.argv", ["clients", str(tmp_path), "--out", "client", "python"])
    assert make("first") == ["python-first"]
    assert make("failed") == ["python-first"]
    assert make("second") == ["python-second"]


# A field of each type that an app stores or decides by, as the language declares it.
DECLARED = {
    "kotlin": {
        "OperationPublic.kt": [
            "val id: kotlin.Long,",
            "val quantity: kotlin.String,",
            "val date: java.time.OffsetDateTime,",
        ],
        "OperationCreate.kt": ["val quantity: kotlin.String,", "val instrumentType: kotlin.String? = null"],
        "Change.kt": ["val revision: kotlin.Long,", "val deletedAt: java.time.OffsetDateTime? = null"],
        "Changes.kt": [
            "val changes: kotlin.collections.List<Change>,",
            "val next: kotlin.Long,",
            "val more: kotlin.Boolean",
        ],
        "TokenPair.kt": [
            "val accessToken: kotlin.String,",
            "val refreshToken: kotlin.String",
            "val expiresIn: kotlin.Long",
        ],
        "Problem.kt": ["val detail: kotlin.String,", "val status: kotlin.Int,", "List<FieldError>? = null"],
    },
    "swift": {
        "OperationPublic.swift": ["var id: Int64\n", "var quantity: String\n", "var date: Date\n"],
        "OperationCreate.swift": ["var quantity: String\n", "var instrumentType: String?\n"],
        "Change.swift": ["var revision: Int64\n", "var deletedAt: Date?\n"],
        "Changes.swift": ["var changes: [Change]\n", "var next: Int64\n", "var more: Bool\n"],
        "TokenPair.swift": ["var accessToken: String\n", "var refreshToken: String\n", "var expiresIn: Int64\n"],
        "Problem.swift": ["var detail: String\n", "var status: Int\n", "var errors: [FieldError]?\n"],
    },
    "dart": {
        "operation_public.dart": [" int id;", " String quantity;", " DateTime date;"],
        "operation_create.dart": [" String quantity;", " String? instrumentType;"],
        "change.dart": [" int revision;", " DateTime? deletedAt;"],
        "changes.dart": [" List<Change> changes;", " int next;", " bool more;"],
        "token_pair.dart": [" String accessToken;", " String refreshToken;", " int expiresIn;"],
        "problem.dart": [" String detail;", " int status;", " List<FieldError> errors;"],
    },
}
# The import takes a file, which these generators send as it is.
IMPORT = {
    "kotlin": "fun importOperations(body: java.io.File,",
    "swift": "func importOperations(body: URL,",
    "dart": "importOperations(MultipartFile body,",
}
TYPELESS = {"kotlin": r"kotlin\.Any\b", "swift": r"AnyCodable|JSONValue", "dart": r"\bObject\?? \w+;"}


@pytest.mark.parametrize("language", DECLARED)
def test_a_client_for_phones_has_every_type_with_its_fields(language: str, tmp_path: Path) -> None:
    client, said = made(language, tmp_path)
    warnings = [line for line in said.splitlines() if re.search("WARN|ERROR", line)]
    assert [line for line in warnings if not any(noise in line for noise in NOISE)] == []
    sources = dict(types(client))
    for name, declarations in DECLARED[language].items():
        assert [each for each in declarations if each not in sources[name]] == [], name
    assert [name for name, text in sources.items() if re.search(TYPELESS[language], text)] == []
    (api,) = (path for path in client.rglob("*") if re.fullmatch(r"(?i)operations_?api\.(kt|swift|dart)", path.name))
    assert IMPORT[language] in api.read_text()


def types(client: Path) -> Iterator[tuple[str, str]]:
    for folder in client.rglob("[mM]odel*"):
        if folder.is_dir() and "docs" not in folder.parts:
            yield from ((file.name, file.read_text()) for file in folder.iterdir())

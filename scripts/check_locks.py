"""Check offline that both lock files fit pyproject.toml, so that a newer release is no reason to fail.

The dependencies in pyproject.toml are followed through the metadata of the packages in .venv, which scripts/check has
just brought up to date: each of them has to be pinned at a version that fits, and nothing else may be pinned.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.core.settings import ROOT

PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[^\s;]+)(?: ; (?P<marker>.+?))? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
OURS = "muster (pyproject.toml"  # how uv notes a direct dependency


@dataclass
class Pin:
    name: str
    version: str
    marker: str | None
    hashes: list[str] = field(default_factory=list)
    is_direct: bool = False

    @property
    def applies(self) -> bool:
        """Whether the pin is installed on this Python and this system."""
        return self.marker is None or Marker(self.marker).evaluate()


class Stale(Exception):
    """Why a lock file has to be written again, as a sentence."""


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"]
    try:
        pins = read(ROOT / "requirements.lock")
        dev_pins = read(ROOT / "requirements-dev.lock")
        compare(pins, wanted)
        compare(dev_pins, [*wanted, *project["dependency-groups"]["dev"]])
        compare_locks(pins, dev_pins)
    except Stale as problem:
        sys.exit(f"check_locks: {problem}; run ./scripts/lock")
    print(f"check_locks: {len(pins)} and {len(dev_pins)} pins fit pyproject.toml")


def read(path: Path) -> list[Pin]:
    """The pins of a lock file, which may contain only pins, their hashes and comments."""
    pins: list[Pin] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := PIN.fullmatch(line):
            pins.append(Pin(found["name"], found["version"], found["marker"]))
        elif pins and HASH.fullmatch(line):
            pins[-1].hashes.append(line.strip(" \\"))
        elif pins and line.lstrip().startswith("#"):
            pins[-1].is_direct |= OURS in line
        elif not line.startswith("#"):
            raise Stale(f"{path.name}, line {number} is neither a pin nor a hash")
    if bare := [pin.name for pin in pins if not pin.hashes]:
        raise Stale(f"{path.name}: {bare[0]} has no hash")
    return pins


def compare(pins: list[Pin], wanted: list[str]) -> None:
    requirements = [Requirement(text) for text in wanted]
    asked = {canonicalize_name(requirement.name) for requirement in requirements}
    if different := asked ^ {pin.name for pin in pins if pin.is_direct}:
        raise Stale(f"{min(different)} is in pyproject.toml or in a lock file, but not in both")
    here = {pin.name: pin for pin in pins if pin.applies}
    reached: set[str] = set()
    for requirement in all_requirements(requirements):
        pin = here.get(canonicalize_name(requirement.name))
        if pin is None or not requirement.specifier.contains(pin.version, prereleases=True):
            raise Stale(f"{requirement} is required, but {pin.version if pin else 'nothing'} is pinned")
        if installed_version(pin.name) != pin.version:
            sys.exit(
                f"check_locks: .venv does not have {pin.name} {pin.version}; run ./scripts/venv requirements-dev.lock"
            )
        reached.add(pin.name)
    if idle := here.keys() - reached:
        raise Stale(f"{min(idle)} is pinned, but nothing requires it")


def compare_locks(pins: list[Pin], dev_pins: list[Pin]) -> None:
    """Check that both lock files pin the same versions, so that the tests run what is served."""
    held = [(pin.name, pin.version, pin.hashes) for pin in dev_pins]
    for pin in pins:
        if (pin.name, pin.version, pin.hashes) not in held:
            raise Stale(f"requirements-dev.lock does not pin {pin.name} {pin.version} as requirements.lock does")


def all_requirements(requirements: list[Requirement]) -> Iterator[Requirement]:
    """The requirements and theirs in turn, with extras, as far as they apply on this Python and this system."""
    waiting = [(requirement, "") for requirement in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        yield requirement
        for wanted in ("", *requirement.extras):
            if (requirement.name, wanted) not in seen:
                seen.add((requirement.name, wanted))
                waiting += [(needed, wanted) for needed in requirements_of(requirement.name)]


def requirements_of(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in distribution(name).requires or ()]
    except PackageNotFoundError:
        return []  # compare() reports it


def installed_version(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()

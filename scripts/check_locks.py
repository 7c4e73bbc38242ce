"""Are both lock files what ./scripts/lock would keep? Judged offline, so that a newer release is no reason to fail.

What pyproject.toml asks for is followed through the metadata of what .venv holds, which scripts/check has just brought
up to date with the dev lock: all of it has to be pinned at a version that fits, and nothing else may be.
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
OURS = "muster (pyproject.toml"  # how uv notes that a package is asked for by pyproject.toml itself


@dataclass
class Pin:
    name: str
    version: str
    marker: str | None
    hashes: list[str] = field(default_factory=list)
    asked_for_here: bool = False

    @property
    def applies(self) -> bool:
        """On this Python and this system."""
        return self.marker is None or Marker(self.marker).evaluate()


class Stale(Exception):
    """What is wrong, in words."""


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
    """The pins of a lock file, in which nothing stands but pins, their hashes and comments."""
    pins: list[Pin] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := PIN.fullmatch(line):
            pins.append(Pin(found["name"], found["version"], found["marker"]))
        elif pins and HASH.fullmatch(line):
            pins[-1].hashes.append(line.strip(" \\"))
        elif pins and line.lstrip().startswith("#"):
            pins[-1].asked_for_here |= OURS in line
        elif not line.startswith("#"):
            raise Stale(f"{path.name}, line {number}: neither a pin nor a hash")
    if bare := [pin.name for pin in pins if not pin.hashes]:
        raise Stale(f"{path.name}: {bare[0]} has no hash")
    return pins


def compare(pins: list[Pin], wanted: list[str]) -> None:
    requirements = [Requirement(text) for text in wanted]
    asked = {canonicalize_name(requirement.name) for requirement in requirements}
    if different := asked ^ {pin.name for pin in pins if pin.asked_for_here}:
        raise Stale(f"{min(different)} stands in pyproject.toml or in a lock file, not in both")
    here = {pin.name: pin for pin in pins if pin.applies}
    reached: set[str] = set()
    for requirement in everything_asked_for(requirements):
        pin = here.get(canonicalize_name(requirement.name))
        if pin is None or not requirement.specifier.contains(pin.version, prereleases=True):
            raise Stale(f"{requirement} is asked for, {pin.version if pin else 'nothing'} is pinned")
        if installed_version(pin.name) != pin.version:
            sys.exit(
                f"check_locks: .venv does not hold {pin.name} {pin.version}; run ./scripts/venv requirements-dev.lock"
            )
        reached.add(pin.name)
    if idle := here.keys() - reached:
        raise Stale(f"{min(idle)} is pinned, nothing asks for it")


def compare_locks(pins: list[Pin], dev_pins: list[Pin]) -> None:
    """What is tested is what is served."""
    held = [(pin.name, pin.version, pin.hashes) for pin in dev_pins]
    for pin in pins:
        if (pin.name, pin.version, pin.hashes) not in held:
            raise Stale(f"requirements-dev.lock does not hold {pin.name} {pin.version} as requirements.lock does")


def everything_asked_for(requirements: list[Requirement]) -> Iterator[Requirement]:
    """Also by what is asked for, and by its extras, as far as it applies on this Python and this system."""
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
                waiting += [(needed, wanted) for needed in needs(requirement.name)]


def needs(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in distribution(name).requires or ()]
    except PackageNotFoundError:
        return []  # installed_version() says so


def installed_version(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()

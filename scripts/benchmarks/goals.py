"""How fast Muster is to be beside fastapi-users, the floor and itself: docs/performance.md says where it stands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from scripts.benchmarks.load import Sample, ratios


@dataclass(frozen=True)
class Start:
    """A process from its start to its first 200, in seconds and CPU seconds, and its memory at rest, in MiB."""

    seconds: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Figures:
    """The measurements on one database: rounds by request and contender, starts by contender."""

    samples: Mapping[tuple[str, str], Sequence[Sample]]
    starts: Mapping[str, Sequence[Start]]

    def rounds(self, request: str, contender: str, field: str) -> list[float]:
        return [getattr(sample, field) for sample in self.samples[request, contender]]

    def of_starts(self, contender: str, field: str) -> list[float]:
        return [getattr(start, field) for start in self.starts[contender]]

    @property
    def errors(self) -> dict[tuple[str, str], int]:
        counts = {key: sum(sample.errors for sample in own) for key, own in self.samples.items()}
        return {key: count for key, count in counts.items() if count}


@dataclass(frozen=True)
class Goal:
    """The most that the median of the rounds that `measure` makes of the figures is to be, on each database."""

    name: str
    measure: Callable[[Figures], list[float]]
    postgresql: float
    sqlite: float
    unit: str = ""

    def verdict(self, kind: str, figures: Figures) -> str:
        bound = self.postgresql if kind == "postgresql" else self.sqlite
        value = median(self.measure(figures))
        return f"{value:.{0 if bound > 10 else 2}f}{self.unit}, {'' if value <= bound else 'not '}met (≤ {bound:g})"


def _ratio(field: str, request: str, *base: str) -> Callable[[Figures], list[float]]:
    """The figure of our request, times that of another request or contender."""
    return lambda figures: ratios(figures.rounds(request, "Muster", field), figures.rounds(base[0], base[1], field))


GOALS = {
    "me": Goal("CPU of GET /users/me, times fastapi-users'", _ratio("cpu", "me", "me", "fastapi-users"), 0.40, 0.25),
    "page": Goal(
        "CPU of a list of 20, times fastapi-users'", _ratio("cpu", "page", "page", "fastapi-users"), 0.60, 0.35
    ),
    "unchanged": Goal("CPU of a 304, times our GET /users/me", _ratio("cpu", "unchanged", "me", "Muster"), 1.1, 1.1),
    "create": Goal(
        "CPU of a create, times fastapi-users'", _ratio("cpu", "create", "create", "fastapi-users"), 0.85, 0.50
    ),
    "refresh": Goal("CPU of a refresh, times our create", _ratio("cpu", "refresh", "create", "Muster"), 1, 1),
    "floor": Goal("CPU of GET /users/me, times the floor's", _ratio("cpu", "me", "me", "floor"), 2.2, 2.0),
    "memory": Goal(
        "memory at rest, one process", lambda figures: figures.of_starts("Muster", "memory"), 95, 95, " MiB"
    ),
    "start": Goal(
        "from the start to the first 200", lambda figures: figures.of_starts("Muster", "seconds"), 0.9, 0.9, " s"
    ),
    "logins": Goal(
        "p99 of reads beside 4 logins a second, times quiet", _ratio("p99", "logins", "me", "Muster"), 1.5, 1.5
    ),
}

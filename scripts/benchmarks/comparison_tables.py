"""The figures of the comparison as tables in Markdown, beside the goals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from scripts.benchmarks.goals import GOALS, Figures, Goal
from scripts.benchmarks.load import ratios, spread

CONTENDERS = ("Muster", "naive", "fastapi-users")
TITLES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
REQUESTS = {
    "me": "GET /users/me",
    "page": "list of 20",
    "unchanged": "list, 304 by If-None-Match",
    "create": "create, 200 owners in turn",
    "refresh": "refresh",
}


@dataclass(frozen=True)
class Row:
    """One figure of each contender that has it, as a number in the format `form`."""

    title: str
    rounds: Mapping[str, Sequence[float]]
    form: str
    goal: Goal | None = None

    def cells(self, kind: str, figures: Figures) -> Iterator[str]:
        yield self.title
        for name in CONTENDERS:
            rounds = self.rounds.get(name)
            yield f"{median(rounds):{self.form}} ({spread(rounds)})" if rounds else ""
        yield self._ratio()
        yield self.goal.verdict(kind, figures) if self.goal else ""

    def _ratio(self) -> str:
        if "fastapi-users" not in self.rounds:
            return ""
        compared = ratios(self.rounds["Muster"], self.rounds["fastapi-users"])
        return f"{median(compared):.2f} ({spread(compared)})"


def table(kind: str, figures: Figures) -> str:
    """Medians and spread on one database, the ratio to fastapi-users, and the goal."""
    lines = [f"| {TITLES[kind]} | {' | '.join(CONTENDERS)} | to fastapi-users | goal |", "|---|" + "---|" * 5]
    lines += [f"| {' | '.join(row.cells(kind, figures))} |" for row in _rows(figures)]
    lines += [f"\n{count} requests of {name}'s {request} FAILED" for (request, name), count in figures.errors.items()]
    return "\n".join(lines)


def _rows(figures: Figures) -> Iterator[Row]:
    for request, title in REQUESTS.items():
        yield Row(f"{title}: server CPU, ms", _rounds(figures, request, "cpu"), ".2f", GOALS[request])
        if any(any(rounds) for rounds in _rounds(figures, request, "database_cpu").values()):
            yield Row("… database CPU, ms", _rounds(figures, request, "database_cpu"), ".2f")
        yield Row("… requests a second", _rounds(figures, request, "rate"), ".0f")
    floor = figures.rounds("me", "floor", "cpu")
    times = {name: ratios(own, floor) for name, own in _rounds(figures, "me", "cpu").items()}
    yield Row(f"GET /users/me, times the CPU of the floor ({median(floor):.2f} ms)", times, ".1f", GOALS["floor"])
    yield Row("memory at rest, MiB", _starts(figures, "memory"), ".0f", GOALS["memory"])
    yield Row("start to the first 200, s", _starts(figures, "seconds"), ".2f", GOALS["start"])
    yield Row("… CPU, s", _starts(figures, "cpu"), ".2f")
    yield Row("p99 of GET /users/me, ms", _rounds(figures, "me", "p99"), ".0f")
    yield Row("… beside 4 logins a second", _rounds(figures, "logins", "p99"), ".0f", GOALS["logins"])


def _rounds(figures: Figures, request: str, field: str) -> dict[str, list[float]]:
    """The rounds of each contender that was sent the request."""
    return {name: figures.rounds(request, name, field) for name in CONTENDERS if (request, name) in figures.samples}


def _starts(figures: Figures, field: str) -> dict[str, list[float]]:
    return {name: figures.of_starts(name, field) for name in CONTENDERS}


def goals_table(figures: Mapping[str, Figures]) -> str:
    """Each goal, and whether it is met on each database."""
    lines = [f"| goal | {' | '.join(TITLES[kind] for kind in figures)} |", "|---|" + "---|" * len(figures)]
    for goal in GOALS.values():
        verdicts = [goal.verdict(kind, own) for kind, own in figures.items()]
        lines.append(f"| {goal.name} | {' | '.join(verdicts)} |")
    return "\n".join(lines)

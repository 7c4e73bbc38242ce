"""The chart of operations, on their page and in statements: a column for each of the latest months, with a segment for
each type."""

from collections import defaultdict
from decimal import Decimal
from typing import Any, NamedTuple

from app.models.types import format_amount

MONTHS = 12  # the latest ones
TYPES = 4  # with a color of their own; the others share one
OTHERS = "other types"

Series = defaultdict[str, Decimal]  # by month


class Column(NamedTuple):
    month: str
    amount: str
    segments: list[tuple[int, float, float]]  # the color, top and height of each


class Chart(NamedTuple):
    """Drawn in amounts, from `above` the axis to `below` it. `legend`: for each type its color and its total."""

    columns: list[Column]
    legend: dict[str, tuple[int, str]]

    @property
    def above(self) -> float:
        return max(-top for column in self.columns for _, top, _ in column.segments)

    @property
    def below(self) -> float:
        return max(top + height for column in self.columns for _, top, height in column.segments)


def monthly_chart(totals: list[dict[str, Any]], *, by_quantity: bool) -> Chart | None:
    """Draw the API's totals: the number of operations, or their quantity, where what was sold points down."""
    if not totals:
        return None
    latest = max(total["month"] for total in totals)
    end = int(latest[:4]) * 12 + int(latest[5:]) - 1  # months since the year 0
    # The latest MONTHS months, with or without operations, but none before the year 1.
    months = [f"{month // 12:04}-{month % 12 + 1:02}" for month in range(max(12, end - MONTHS + 1), end + 1)]
    series = _series([total for total in totals if total["month"] in months], by_quantity=by_quantity)
    sums = {name: format_amount(sum(amounts.values(), Decimal())) for name, amounts in series.items()}
    legend = {name: (color, amount) for color, (name, amount) in enumerate(sums.items())}
    return Chart([_column(month, series) for month in months], legend)


def _series(totals: list[dict[str, Any]], *, by_quantity: bool) -> dict[str, Series]:
    """The amounts of each type, the type with the most operations first."""
    counts: defaultdict[str, int] = defaultdict(int)
    for total in totals:
        counts[total["type"]] += total["count"]
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    series = {name: Series(Decimal) for name in [*ranked[:TYPES], *([OTHERS] if len(ranked) > TYPES else [])]}
    for total in totals:
        amount = Decimal(total["quantity"] if by_quantity else total["count"])
        is_sold = by_quantity and total["type"] == "sell"
        series[total["type"] if total["type"] in series else OTHERS][total["month"]] += -amount if is_sold else amount
    return series


def _column(month: str, series: dict[str, Series]) -> Column:
    column = Column(month, format_amount(sum((amounts[month] for amounts in series.values()), Decimal())), [])
    top = bottom = 0.0
    for color, amounts in enumerate(series.values()):
        amount = float(amounts[month])
        top -= max(amount, 0)
        column.segments.append((color, top if amount > 0 else bottom, abs(amount)))
        bottom -= min(amount, 0)
    return column

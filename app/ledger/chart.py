"""The chart of operations, on their page and in statements: a column for each of the latest months, with a segment for
each type."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from app.models.types import format_amount

MONTHS = 12  # the latest ones
TYPES = 4  # with a color of their own; the others share one
OTHERS = "other types"
HEIGHT = 100.0  # units of the drawing, which the page stretches

Series = defaultdict[str, Decimal]  # by month


@dataclass
class Segment:
    color: int
    y: float
    height: float


@dataclass
class Column:
    month: str
    amount: str
    segments: list[Segment] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The month alone; the year where it begins."""
        return self.month[:4] if self.month.endswith("-01") else self.month[5:]


@dataclass
class Chart:
    """`legend`: for each type its color and its total in the months shown. `zero` is the height of the axis."""

    columns: list[Column]
    legend: dict[str, tuple[int, str]]
    zero: float


def monthly_chart(totals: Iterable[dict[str, Any]], *, by_quantity: bool) -> Chart | None:
    """Draw the API's totals: the number of operations, or their quantity, in which what was sold points down."""
    totals = list(totals)
    if not totals:
        return None
    months = _months_until(max(total["month"] for total in totals))
    series = _series([total for total in totals if total["month"] in months], by_quantity=by_quantity)
    above = max(sum((one[month] for one in series.values() if one[month] > 0), Decimal()) for month in months)
    below = max(-sum((one[month] for one in series.values() if one[month] < 0), Decimal()) for month in months)
    scale = HEIGHT / float(above + below or 1)
    columns = [_column(month, series, float(above), scale) for month in months]
    legend = {
        name: (color, format_amount(sum(one.values(), Decimal()))) for color, (name, one) in enumerate(series.items())
    }
    return Chart(columns, legend, float(above) * scale)


def _months_until(last: str) -> list[str]:
    """The months that end with `last`, including those without any operation."""
    end = int(last[:4]) * 12 + int(last[5:]) - 1
    return [f"{month // 12:04}-{month % 12 + 1:02}" for month in range(max(12, end - MONTHS + 1), end + 1)]


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


def _column(month: str, series: dict[str, Series], above: float, scale: float) -> Column:
    column = Column(month, format_amount(sum((one[month] for one in series.values()), Decimal())))
    top = bottom = above * scale
    for color, one in enumerate(series.values()):
        height = abs(float(one[month])) * scale
        if one[month] > 0:
            top -= height
            column.segments.append(Segment(color, round(top, 2), round(height, 2)))
        elif one[month] < 0:
            column.segments.append(Segment(color, round(bottom, 2), round(height, 2)))
            bottom += height
    return column

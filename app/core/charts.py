"""A chart by month, for templates/chart.html: SVG made here, so that it needs no script."""

from collections.abc import Mapping
from typing import Any

_HEIGHT = 120  # pixels of the highest bar


def bars(months: Mapping[str, int]) -> list[dict[str, Any]]:
    """One bar a month, the earliest first; `months` is such as {"2023-10": 3}."""
    most = max(months.values(), default=1)
    return [
        {"month": month, "count": count, "height": round(_HEIGHT * count / most)}
        for month, count in sorted(months.items())
    ]

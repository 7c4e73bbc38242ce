"""Jinja2 templates, which escape values in HTML, and the bars of a chart."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from app.core.settings import ROOT

_environment = Environment(
    loader=FileSystemLoader(ROOT / "app" / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(name: str, **values: Any) -> str:
    return _environment.get_template(name).render(**values)


_HEIGHT = 120  # pixels of the tallest bar


def bars(months: Mapping[str, int]) -> list[dict[str, Any]]:
    """One bar for each month, the earliest first. `months` maps months to counts, such as {"2023-10": 3}."""
    most = max(months.values(), default=1)
    return [
        {"month": month, "count": count, "height": round(_HEIGHT * count / most)}
        for month, count in sorted(months.items())
    ]

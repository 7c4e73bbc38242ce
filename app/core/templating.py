"""Jinja2 templates, which escape values in HTML."""

from functools import cache
from typing import TYPE_CHECKING, Any

from app.core.settings import ROOT

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> "Environment":
    import jinja2  # noqa: PLC0415  # 2 MB that an API which nobody browses need not hold

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([ROOT / "app" / "templates", ROOT / "app" / "static"]),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

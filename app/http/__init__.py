"""The HTTP layer that every request passes through: middleware, routing, error handlers, rate limits. Start with
middleware.py.
"""

from fastapi import utils

# To reject models of Pydantic's first version, FastAPI would import it: 40 ms of the start, and 2 MB.
utils.annotation_is_pydantic_v1 = lambda _annotation: False  # type: ignore[assignment,attr-defined]  # no export

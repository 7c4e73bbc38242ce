"""Health of the pages where they run alone; with the API in one process, its own health says it all."""

from fastapi import APIRouter, Request

from app.api_client import Api, Refused
from app.errors import Unavailable

router = APIRouter(include_in_schema=False)


@router.get("/health/live")
async def is_live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/health/ready")
async def is_ready(request: Request) -> dict[str, str]:
    """So does the API, and it is ready: a page shows nothing without it."""
    try:
        await Api(request).call("GET", "/health/ready")
    except Refused:
        raise Unavailable("The API is not ready. Try again shortly.") from None
    return {"status": "ok"}

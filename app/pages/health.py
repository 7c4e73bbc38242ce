"""Health and metrics of the pages where they run apart from the API."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.core import metrics
from app.core.errors import Unavailable
from app.core.settings import get_settings
from app.http.monitoring import Health, check_scraper
from app.pages.api_client import ApiError, call_api

router = APIRouter()


@router.get("/health/live")
async def is_live() -> Health:
    """Whether this process answers."""
    return Health()


@router.get("/health/ready")
async def are_pages_ready(request: Request) -> Health:
    """Whether the API is ready: without it no page has anything to show."""
    try:
        await call_api(request, "GET", "/health/ready")
    except ApiError:
        raise Unavailable from None
    return Health()


@router.get("/metrics")
async def read_metrics(request: Request) -> Response:
    check_scraper(request, get_settings())
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

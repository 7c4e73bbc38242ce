"""Monitoring, shared by the API and the pages: the health response, and access to the metrics."""

from ipaddress import ip_address
from secrets import compare_digest
from typing import Literal

from fastapi import Request
from sqlmodel import Field, SQLModel

from app.core.errors import InvalidToken, MetricsRefused, Unauthenticated
from app.core.settings import Settings
from app.http.rate_limit import client_address


class Health(SQLModel):
    status: Literal["ok"] = Field(default="ok", description="Always ok: otherwise the response is an error.")


def check_scraper(request: Request, settings: Settings) -> None:
    """Require METRICS_TOKEN or, where it is not set and outside production, a request from this machine."""
    header, token = request.headers.get("authorization"), settings.metrics_token
    if token is None:
        if settings.environment == "production":
            raise MetricsRefused
        # Behind a proxy on this machine, every client would seem to be on this machine.
        forwarded = {"x-forwarded-for", "forwarded"} & set(request.headers)
        if forwarded or client_address(request) == "unknown" or not ip_address(client_address(request)).is_loopback:
            raise MetricsRefused
    elif header is None:
        raise Unauthenticated
    elif not compare_digest(header.encode(), f"Bearer {token}".encode()):
        raise InvalidToken

"""Monitoring, shared by the API and the pages: the health response, and who may read metrics."""

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
        if settings.environment == "production" or not is_from_this_machine(request):
            raise MetricsRefused
    elif header is None:
        raise Unauthenticated
    elif not compare_digest(header.encode(), f"Bearer {token}".encode()):
        raise InvalidToken


def is_from_this_machine(request: Request) -> bool:
    """Whether the request comes from this machine and no proxy forwarded it: behind a proxy here, all clients would."""
    forwarded = {"x-forwarded-for", "forwarded"} & set(request.headers)
    address = client_address(request)
    return not forwarded and address != "unknown" and ip_address(address).is_loopback

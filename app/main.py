"""The two applications, API and pages: services, middleware, routes, errors. Serve both as one with ./scripts/serve."""

import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from anyio import to_thread
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles
from slowapi.errors import RateLimitExceeded
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.core.database import CHAT_SLOTS, Database
from app.core.errors import AppError
from app.core.logs import configure_logging
from app.core.settings import ROOT, Settings, get_settings
from app.http.error_handlers import answer
from app.http.middleware import CatchAll, MigrationCheck, RequestContext
from app.http.openapi import description, install_openapi, operation_id, tags
from app.jobs.handlers import Handlers
from app.pages import account, jobs_and_chat, public
from app.pages import health as page_health
from app.pages import operations as operation_pages
from app.pages.api_client import ApiError
from app.pages.error_pages import answer_page
from app.pages.rendering import page_headers
from app.routers import (
    auth,
    auth_cookie,
    auth_oidc,
    chat,
    chat_ws,
    health,
    heroes,
    jobs,
    me,
    operations,
    operations_csv,
    tasks,
    users,
    well_known,
)
from app.services import make_services

# Requests under way are no garbage either: at 1,000 connections the default, 700 new objects, looked through them again
# and again, which took a tenth to a fifth of the throughput.
GC_THRESHOLD = (20_000, 20, 20)
# Beside the slots' threads: hashing, health and limits need some too.
SPARE_THREADS = 24
# One at work, which may take some hundred MB, and few waiting, each with its body in memory.
Answer = Callable[[Request, Exception], Awaitable[Response]]

HSTS = "max-age=31536000"  # a year; subdomains are not ours to speak for
EXPOSED = ["ETag", "Link", "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID"]
ALLOWED = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", "Last-Event-ID"]


def create_api() -> FastAPI:
    settings = get_settings()
    configure_logging(settings)
    api = FastAPI(
        title="Muster",
        version="0.1.0",
        description=description(),
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_url="/api/openapi.json",
        openapi_tags=tags(),
        generate_unique_id_function=operation_id,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    for router in (
        *([auth_oidc.router] if settings.pages_sign_in_there else []),
        *(
            [auth.local_accounts, auth_cookie.local_accounts, me.local_accounts]
            if settings.local_accounts == "on"
            else []
        ),
        health.router,
        health.pages,
        auth_cookie.router,
        auth.router,
        me.router,
        users.router,
        operations_csv.router,
        operations.router,
        heroes.router,
        tasks.router,
        jobs.router,
        chat.router,
        chat_ws.router,
        well_known.router,
    ):
        api.include_router(router)
    finish(api, settings, answer, headers={}, cors=True)
    api.add_middleware(MigrationCheck, settings=settings)
    install_openapi(api)
    return api


def create_web(api: FastAPI | None) -> FastAPI:
    """The pages: in front of `api`, which runs in this process, or alone, in front of API_URL."""
    settings = get_settings()
    configure_logging(settings)
    if api is None and settings.api_url is None:
        sys.exit("muster: API_URL: the pages alone need the URL where the API runs, such as http://localhost:8000")
    web = FastAPI(title="Muster's pages", openapi_url=None, lifespan=web_lifespan)
    web.state.api = api
    routers = [public.router, account.router, operation_pages.router, jobs_and_chat.router]
    routers += [public.local_accounts, account.local_accounts] if settings.local_accounts == "on" else []
    for router in [*routers, *([] if api else [page_health.router])]:
        web.include_router(router)
    finish(web, settings, answer_page, headers=page_headers(settings, apart=api is None), cors=False)
    return web


class Together:
    """Both behind one address. The API has the lifespan (a scope without a path), health and metrics."""

    OF_THE_API = ("api", ".well-known", "health", "metrics")

    def __init__(self, api: FastAPI, web: FastAPI) -> None:
        self.api, self.web = api, web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = scope.get("path", "/api").removeprefix("/").partition("/")[0]
        await (self.api if first in self.OF_THE_API else self.web)(scope, receive, send)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Builds the services on the loop they live on, and ends them in reverse."""
    settings = get_settings()
    to_thread.current_default_thread_limiter().total_tokens = settings.db_slots + CHAT_SLOTS + SPARE_THREADS
    async with BlockingPortal() as portal:
        services = make_services(settings, Database(settings, portal))
        app.state.services = services
        services.jobs.start(Handlers(settings, services.database, services.signers, services.jobs).by_kind())
        # What lives as long as the process is no garbage: looking through it each time took some 5 % of the CPU.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        try:
            async with services.chat.running():
                yield {"on_shutdown": services.chat.stop}  # app/http/uvicorn_protocols.py calls it
        finally:
            await to_thread.run_sync(services.jobs.close)
            services.database.close()
            if services.provider is not None:
                await services.provider.close()


@asynccontextmanager
async def web_lifespan(web: FastAPI) -> AsyncIterator[None]:
    """Of the pages alone: the connections to the API."""
    async with httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=100, keepalive_expiry=2)) as transport:
        web.state.transport = transport
        yield


def finish(app: FastAPI, settings: Settings, answer: Answer, *, headers: dict[str, str], cors: bool) -> None:
    """What both applications have: static files, one answer to all errors, and the middleware, of which the last one
    added is the first one passed."""
    app.mount("/static", StaticFiles(directory=ROOT / "app" / "static"), name="static")
    for kind in (AppError, ApiError, HTTPException, RequestValidationError, RateLimitExceeded, SQLAlchemyError):
        app.add_exception_handler(kind, answer)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body)
    app.add_middleware(CatchAll, answer=answer)
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    if cors and settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=True,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=ALLOWED,
            expose_headers=EXPOSED,
        )
    if settings.environment == "production":
        headers = headers | {"strict-transport-security": HSTS}
    app.add_middleware(RequestContext, headers=headers)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))


def __getattr__(name: str) -> FastAPI:
    """`web` is the pages alone, made only for who serves them so: it needs an API_URL."""
    if name == "web":
        return create_web(None)
    raise AttributeError(name)


api = create_api()
app = Together(api, create_web(api))

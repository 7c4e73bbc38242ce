"""The applications: the API, the pages, and both combined, each with its routes and middleware. ./scripts/serve runs
them."""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import from_thread, to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.core.database import Database
from app.core.dialects import CHAT_SLOTS
from app.core.logs import configure_logging
from app.core.settings import ROOT, get_settings
from app.core.shutdown import install_shutdown_handlers
from app.http.bodies import BodyGuard
from app.http.compression import CompressedFiles, Compression
from app.http.error_handlers import error_response
from app.http.middleware import CatchAll, ClientAddress, ErrorHandler, MigrationCheck, RequestContext
from app.http.openapi_document import install_openapi
from app.jobs.handlers import JobHandlers
from app.pages import account, admin, authorize, jobs_and_chat, mailbox, public
from app.pages import health as page_health
from app.pages import operations as operation_pages
from app.pages.rendering import error_page_response, page_headers
from app.routers import (
    audit,
    auth,
    auth_cookie,
    auth_oidc,
    authorization,
    chat,
    chat_ws,
    clients,
    health,
    heroes,
    jobs,
    me,
    operations,
    operations_csv,
    system,
    tasks,
    users,
    well_known,
)
from app.services import Services

EXPOSED = ["ETag", "Link", "Location", "Next-Cursor", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID"]


def create_api() -> FastAPI:
    settings = get_settings()
    configure_logging(settings)
    api = FastAPI(
        title="Muster",
        version="0.1.0",
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it redirects to absolute URLs, with the host name that a proxy uses
        lifespan=lifespan,
    )
    # Routes are tried in this order: the most used come first, and CSV before operations, where /export would be an id.
    routers = [me.router, operations_csv.router, operations.router]
    if "authorization_code" in settings.grant_types:
        routers += [authorization.router]
    if settings.has_provider_login:
        routers += [auth_oidc.router]
    if settings.local_accounts == "on":
        routers += [auth.local_accounts, auth_cookie.local_accounts, me.local_accounts]
    modules = [health, auth_cookie, auth, users, clients, audit, system, jobs, well_known]
    modules += [heroes, tasks, chat, chat_ws]
    for router in routers + [module.router for module in modules]:
        api.router.routes += router.routes  # include_router() would match each twice: a tenth of the CPU
    add_files_and_middleware(api, error_response, headers={}, cors=True)
    api.add_middleware(MigrationCheck, settings=settings)
    install_openapi(api)
    return api


def create_pages(api: FastAPI | None) -> FastAPI:
    """The pages, in front of `api` in the same process, or on their own in front of API_URL."""
    settings = get_settings()
    if api is None and settings.api_url is None:
        sys.exit("muster: API_URL: the pages alone need the URL where the API runs, such as http://localhost:8000")
    pages = FastAPI(title="Muster's pages", openapi_url=None, redirect_slashes=False, lifespan=pages_lifespan)
    pages.state.api = api
    routers = [public.router, account.router, operation_pages.router, jobs_and_chat.router, admin.router]
    if settings.local_accounts == "on":
        routers += [public.local_accounts, account.local_accounts]
    if "authorization_code" in settings.grant_types:
        routers += [authorize.router]
    if settings.has_mailbox:
        routers += [mailbox.router]
    if api is None:
        routers += [page_health.router]
    for router in routers:
        pages.include_router(router)
    add_files_and_middleware(pages, error_page_response, headers=page_headers(), cors=False)
    return pages


class CombinedApplication:
    """API and pages at one address. The API serves health and metrics too, and runs the lifespan, which has no path."""

    def __init__(self, api: FastAPI, pages: FastAPI) -> None:
        self.api, self.pages = api, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = scope.get("path", "/api").removeprefix("/").partition("/")[0]
        await (self.api if first in {"api", ".well-known", "health", "metrics"} else self.pages)(scope, receive, send)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Build the services on the event loop that they use, and close them in reverse order."""
    settings = get_settings()
    install_shutdown_handlers()
    # 24 threads beyond those of the database's slots: for hashing, health and rate limits.
    to_thread.current_default_thread_limiter().total_tokens = settings.db_slots + CHAT_SLOTS + 24
    async with from_thread.BlockingPortal() as portal:
        app.state.services = services = Services(settings, Database(settings, portal))
        services.jobs.start(JobHandlers(settings, services.signers, services.account_limits.may_mail).handle)
        # Objects that live as long as the process are never garbage: walking them each time took about 5% of the CPU.
        gc.freeze()
        try:
            async with services.chat.running():
                yield {"on_shutdown": services.chat.stop}  # app/http/uvicorn_protocols.py calls it
        finally:
            await to_thread.run_sync(services.jobs.close)
            await services.database.close()
            if services.provider is not None:
                await services.provider.close()


@asynccontextmanager
async def pages_lifespan(pages: FastAPI) -> AsyncIterator[None]:
    """The connections to the API, for pages that run on their own."""
    import httpx  # noqa: PLC0415  # as in app/pages/api_client.py

    install_shutdown_handlers()
    async with httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=100, keepalive_expiry=2)) as transport:
        pages.state.transport = transport
        yield


def add_files_and_middleware(app: FastAPI, handle_error: ErrorHandler, *, headers: dict[str, str], cors: bool) -> None:
    """Add static files, the handler of all errors, and the middleware to the API or the pages.

    The middleware added last is the first one that a request passes.
    """
    settings = get_settings()
    app.mount("/static", CompressedFiles(directory=ROOT / "app" / "static"), name="static")
    for kind in (HTTPException, RequestValidationError):  # FastAPI would answer these itself, CatchAll gets all others
        app.add_exception_handler(kind, handle_error)
    app.add_middleware(CatchAll, settings=settings, handle_error=handle_error)
    app.add_middleware(Compression, minimum_size=1024)
    if cors and settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=True,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    if settings.environment == "production":  # for one year, without the subdomains, which may be somebody else's
        headers = headers | {"strict-transport-security": "max-age=31536000"}
    app.add_middleware(RequestContext, headers=headers)
    app.add_middleware(BodyGuard, settings=settings)
    app.add_middleware(ClientAddress, trusted=settings.trusted_proxies)


def __getattr__(name: str) -> FastAPI:
    """Create `web`, the pages on their own, only when somebody imports it, since it needs API_URL."""
    if name == "web":
        return create_pages(None)
    raise AttributeError(name)


api = create_api()
app = CombinedApplication(api, create_pages(api))

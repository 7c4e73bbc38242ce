"""The application: its parts, its middleware, its routes, its errors. Serve it with ./scripts/serve."""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles
from slowapi.errors import RateLimitExceeded
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.cache import Cache
from app.db import Database
from app.deps import Parts
from app.errors import AppError
from app.handlers import Postbox
from app.limits import AccountLimits
from app.mail import mailer_for
from app.middleware import CatchAll, RequestContext, RequestIdFilter
from app.oauth2 import AuthorizationServer
from app.openapi import DESCRIPTION, TAGS, install_openapi
from app.passwords import PasswordHasher
from app.responses import answer
from app.routers import auth, heroes, me, operations, operations_csv, ops, tasks, users
from app.security import Signers
from app.settings import ROOT, Settings, get_settings
from app.turns import Turns

# Beside the slots' threads: hashing, health and limits need some too.
SPARE_THREADS = 24
# One at work, which may take some hundred MB, and few waiting, each with its body in memory.
IMPORTS = 5
EXPOSED = ["ETag", "Link", "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID"]
ALLOWED = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", "Last-Event-ID"]


def create_app() -> FastAPI:
    settings = get_settings()
    configure_logging(settings)
    app = FastAPI(
        title="Muster",
        version="0.1.0",
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_url="/api/openapi.json",
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    for router in (
        ops.router,
        ops.pages,
        auth.router,
        me.router,
        users.router,
        operations_csv.router,
        operations.router,
        heroes.router,
        tasks.router,
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=ROOT / "app" / "static"), name="static")
    for kind in (AppError, HTTPException, RequestValidationError, RateLimitExceeded, SQLAlchemyError):
        app.add_exception_handler(kind, answer)
    add_middleware(app, settings)
    install_openapi(app)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Builds the parts on the loop they live on, and ends them in reverse."""
    settings = get_settings()
    to_thread.current_default_thread_limiter().total_tokens = settings.db_slots + SPARE_THREADS
    database = Database(settings)
    signers = Signers.derive(settings.secret_keys, settings.public_url)
    postbox = Postbox(database, signers, mailer_for(settings), sender=settings.mail_from, url=settings.public_url)
    server = AuthorizationServer(
        signers,
        access_ttl=settings.access_token_ttl,
        idle_ttl=settings.refresh_idle_ttl,
        absolute_ttl=settings.refresh_absolute_ttl,
        grace=settings.refresh_grace,
        on_reuse=postbox.reuse,
    )
    app.state.parts = Parts(
        settings=settings,
        database=database,
        signers=signers,
        server=server,
        hasher=PasswordHasher(),
        account_limits=AccountLimits(settings.limit_login_account, settings.redis_url),
        postbox=postbox,
        cache=Cache(settings.redis_url),
        imports=Turns(1, IMPORTS, busy="Too many imports at once. Try again in a moment.", retry_after=10),
    )
    # What lives as long as the process is no garbage: looking through it each time took some 5 % of the CPU.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        await to_thread.run_sync(postbox.close)
        database.close()


def add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added is the first one passed."""
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body)
    app.add_middleware(CatchAll)
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=True,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=ALLOWED,
            expose_headers=EXPOSED,
        )
    app.add_middleware(RequestContext)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))


def configure_logging(settings: Settings) -> None:
    """One readable line a record, with the id of its request."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"))
    logger = logging.getLogger("muster")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if settings.environment != "test" else logging.WARNING)


app = create_app()

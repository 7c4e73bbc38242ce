"""The services of a running application, built once by the lifespan, and the dependencies that give routes access."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Request
from sqlmodel import Session
from starlette.requests import HTTPConnection

from app.accounts.limits import AccountLimits
from app.accounts.passwords import PasswordHasher
from app.chat.hub import ChatHub
from app.core.cache import Cache
from app.core.concurrency import Bulkhead
from app.core.database import Database
from app.core.settings import Settings
from app.http.routing import RequestDependency
from app.jobs.queue import JobQueue
from app.models.refresh_token import SessionSnapshot
from app.oauth2.access_tokens import Signers
from app.oauth2.authorization_server import AuthorizationServer
from app.oauth2.refresh_tokens import live_scopes
from app.oidc.login import LoginFlow
from app.oidc.provider import Provider

# One import runs at a time, since it may take a few hundred MB of memory. The others wait, two of each person at most.
MAX_IMPORTS, IMPORTS_OF_ONE = 5, 2


@dataclass(frozen=True)
class Services:
    """Everything that lives as long as the application."""

    settings: Settings
    database: Database
    signers: Signers
    authorization_server: AuthorizationServer
    password_hasher: PasswordHasher
    account_limits: AccountLimits
    jobs: JobQueue
    cache: Cache
    import_bulkhead: Bulkhead
    chat: ChatHub
    provider: Provider | None
    login_flow: LoginFlow | None


def services_of(connection: HTTPConnection) -> Services:
    """The services of the application that serves this request or socket."""
    return cast("Services", connection.app.state.services)


async def get_services(request: Request) -> Services:
    return services_of(request)


ServicesDep = Annotated[Services, RequestDependency(get_services)]


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1


async def get_session(request: Request) -> Session:
    """A session of the side of the database that serves the request: safe methods read, all others write."""
    database = services_of(request).database
    side = database.read if request.method in SAFE_METHODS else database.write
    return side.new_session()


# app/http/routing.py runs the route with it, and commits before the response is sent.
SessionDep = Annotated[Session, RequestDependency(get_session)]


def make_services(settings: Settings, database: Database) -> Services:
    signers = Signers(settings.secret_keys, settings.public_url, settings.jwt_private_key_files)
    jobs = JobQueue(database, settings.redis_url)

    def mail_reuse(session: Session, stolen: SessionSnapshot) -> None:
        jobs.mail(session, "reuse", owner_id=stolen.user_id, to=stolen.email, device=stolen.device)

    provider = Provider(settings.oidc_issuer, settings) if settings.oidc_issuer else None
    login_flow = LoginFlow(provider, signers.sign_in, settings) if provider and settings.has_provider_login else None
    return Services(
        settings=settings,
        database=database,
        signers=signers,
        authorization_server=AuthorizationServer(settings, signers, mail_reuse),
        password_hasher=PasswordHasher(),
        account_limits=AccountLimits(settings.limit_login_account, settings.redis_url),
        jobs=jobs,
        cache=Cache(settings.redis_url),
        import_bulkhead=Bulkhead(
            MAX_IMPORTS, IMPORTS_OF_ONE, detail="Too many imports at once. Try again shortly.", retry_after=10
        ),
        chat=ChatHub(database, settings.redis_url, live_scopes),
        provider=provider,
        login_flow=login_flow,
    )

"""The parts of a running application, and how routes get at them."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlmodel import Session
from starlette.requests import HTTPConnection

from app.accounts.passwords import PasswordHasher
from app.chat.hub import ChatHub
from app.core.cache import Cache
from app.core.concurrency import Turns
from app.core.database import Database
from app.core.settings import Settings
from app.http.rate_limit import AccountLimits, ChatLimits
from app.jobs.queue import Jobs
from app.oauth2.access_tokens import Signers
from app.oauth2.authorization_server import AuthorizationServer
from app.oauth2.refresh_tokens import SessionState, live_scopes
from app.oidc.login import CodeFlow
from app.oidc.provider import Provider

IMPORTS = 5


@dataclass(frozen=True)
class Parts:
    """What the lifespan builds once for the whole application."""

    settings: Settings
    database: Database
    signers: Signers
    server: AuthorizationServer
    hasher: PasswordHasher
    account_limits: AccountLimits
    jobs: Jobs
    cache: Cache
    imports: Turns
    chat: ChatHub
    provider: Provider | None
    code_flow: CodeFlow | None
    chat_limits: ChatLimits


def parts_of(connection: HTTPConnection) -> Parts:
    return cast("Parts", connection.app.state.parts)


async def get_parts(request: Request) -> Parts:
    return parts_of(request)


PartsDep = Annotated[Parts, Depends(get_parts)]


def make_parts(settings: Settings, database: Database) -> Parts:
    signers = Signers.derive(settings.secret_keys, settings.public_url, settings.jwt_private_key_files)
    jobs = Jobs(database, settings.redis_url)

    def mail_reuse(session: Session, state: SessionState) -> None:
        jobs.mail(session, "reuse", owner_id=state.user_id, to=state.email, device=state.device)

    provider = code_flow = None
    if settings.oidc_issuer:
        provider = Provider(settings.oidc_issuer, settings.oidc_audience, settings.oidc_client_id)
    if provider and settings.pages_sign_in_there:
        code_flow = CodeFlow(
            provider,
            signers.sign_in,
            client_id=settings.oidc_client_id[0],
            client_secret=settings.oidc_client_secret,
            redirect_uri=f"{settings.public_url}/api/auth/oidc/callback",
        )
    server = AuthorizationServer(
        signers,
        access_ttl=settings.access_token_ttl,
        idle_ttl=settings.refresh_idle_ttl,
        absolute_ttl=settings.refresh_absolute_ttl,
        grace=settings.refresh_grace,
        on_reuse=mail_reuse,
    )
    return Parts(
        settings=settings,
        database=database,
        signers=signers,
        server=server,
        hasher=PasswordHasher(),
        account_limits=AccountLimits(settings.limit_login_account, settings.redis_url),
        jobs=jobs,
        cache=Cache(settings.redis_url),
        imports=Turns(1, IMPORTS, busy="Too many imports at once. Try again in a moment.", retry_after=10),
        chat=ChatHub(database, settings.redis_url, live_scopes),
        provider=provider,
        code_flow=code_flow,
        chat_limits=ChatLimits(settings.limit_chat, settings.limit_default, settings.redis_url),
    )

"""The services of a running application, built once by the lifespan."""

from typing import cast

from sqlmodel import Session
from starlette.requests import HTTPConnection

from app.accounts.limits import AccountLimits
from app.accounts.passwords import PasswordHasher
from app.chat.hub import ChatHub
from app.core.cache import Cache
from app.core.concurrency import Bulkhead
from app.core.database import Database
from app.core.settings import Settings
from app.jobs.queue import JobQueue
from app.models.refresh_token import SessionSnapshot
from app.oauth2.access_tokens import Signers
from app.oauth2.authorization_server import AuthorizationServer
from app.oidc.provider import Provider

# One import runs at a time, since it may take a few hundred MB of memory. At most five run or wait, two of a person.
MAX_IMPORTS, IMPORTS_OF_ONE = 5, 2


class Services:
    """The objects that live as long as the application, built on its event loop."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings, self.database = settings, database
        self.signers = Signers(settings.secret_keys, settings.public_url, settings.jwt_private_key_files)
        self.authorization_server = AuthorizationServer(settings, self.signers, self._mail_reuse)
        self.password_hasher = PasswordHasher()
        self.account_limits = AccountLimits(settings.limit_login_account, settings.redis_url)
        self.jobs = JobQueue(database, settings.redis_url)
        self.cache = Cache(settings.redis_url)
        self.import_bulkhead = Bulkhead("imports", capacity=MAX_IMPORTS, share=IMPORTS_OF_ONE, retry_after=10)
        self.chat = ChatHub(database, settings.redis_url)
        self.provider = Provider(settings.oidc_issuer, settings) if settings.oidc_issuer else None

    def _mail_reuse(self, session: Session, stolen: SessionSnapshot) -> None:
        self.jobs.mail(session, "reuse", owner_id=stolen.user_id, to=stolen.email, device=stolen.device)


def services_of(connection: HTTPConnection) -> Services:
    """The services of the application that serves this request or socket."""
    return cast("Services", connection.app.state.services)

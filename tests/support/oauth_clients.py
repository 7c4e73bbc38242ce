"""An app that signs people in by authorization code, with what it sends and what a person clicks."""

from dataclasses import dataclass, field
from secrets import token_urlsafe
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import httpx
from sqlmodel import Session

from app.accounts.users import find_user_by_email
from app.core.crypto import sha256_base64url
from app.models.base import utcnow
from app.models.oauth_client import OAuthClient
from app.oauth2.refresh_tokens import Device, SignIn
from app.oauth2.requests import AuthorizationRequest
from tests.support.cookie_browser import Browser, signed_in
from tests.support.servers import Account, Muster, Tokens, authorization_server

REDIRECT_URI = "com.example.ledger:/signed-in"


@dataclass
class App:
    """A registered client, with the verifier of one sign-in."""

    muster: Muster
    redirect_uri: str = REDIRECT_URI
    id: str = field(default_factory=lambda: f"ledger-{uuid4().hex}")
    verifier: str = field(default_factory=lambda: token_urlsafe(48))
    state: str = field(default_factory=token_urlsafe)

    def __post_init__(self) -> None:
        with Session(self.muster.engine) as session:
            session.add(OAuthClient(id=self.id, name="Ledger", redirect_uris=[self.redirect_uri]))
            session.commit()

    def request(self, **changes: str | None) -> str:
        """The address of /authorize; None leaves a parameter out."""
        query = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge": sha256_base64url(self.verifier),
            "code_challenge_method": "S256",
            **changes,
        }
        return f"/authorize?{urlencode({name: value for name, value in query.items() if value is not None})}"

    def decide(self, browser: Browser, decision: str = "continue", **changes: str | None) -> dict[str, str]:
        """Click a button of the consent page, and return the parameters that the app receives."""
        return self.received(browser.call("POST", self.request(**changes), data={"decision": decision}))

    def received(self, answer: httpx.Response) -> dict[str, str]:
        """The parameters of a redirect to the app; each occurs once."""
        assert answer.status_code == 303, answer.text
        where = answer.headers["location"]
        assert where.startswith(self.redirect_uri), where
        pairs = parse_qsl(urlsplit(where).query, keep_blank_values=True)
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def code(self, account: Account, **changes: str | None) -> str:
        return self.decide(signed_in(account), "continue", **changes)["code"]

    def codes(self, account: Account, number: int) -> list[str]:
        """Codes like those that the page issues, made without a browser."""
        server = authorization_server(frozenset(self.muster.settings.items()))
        device = Device(client_id=self.id, device="Ledger", ip="127.0.0.1", user_agent="python-httpx")
        parameters = {"redirect_uri": self.redirect_uri, "code_challenge": sha256_base64url(self.verifier)}
        with Session(self.muster.engine) as session:
            request = AuthorizationRequest(session.get_one(OAuthClient, self.id), parameters, repeats_parameter=False)
            user = find_user_by_email(session, account.email)
            assert user is not None
            now = utcnow()
            sign_in = SignIn(user.id, user.auth_epoch, device, authenticated_at=now)
            codes = [server.issue_code(session, sign_in, request, now) for _ in range(number)]
            session.commit()
        return codes

    def exchange(self, code: str | None, **changes: str | None) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "client_id": self.id,
            "code_verifier": self.verifier,
            **changes,
        }
        return self.muster.token(**{name: value for name, value in form.items() if value is not None})

    def sign_in(self, account: Account) -> Tokens:
        answer = self.exchange(self.code(account))
        assert answer.status_code == 200, answer.text
        return Tokens(answer.json())

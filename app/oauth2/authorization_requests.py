"""Authorization requests (RFC 6749 section 4.1.1, RFC 7636 section 4.3), and the redirects in response to them."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from sqlmodel import Session

from app.core.errors import UnknownClient
from app.core.oauth_errors import InvalidRequest, OAuthError, UnsupportedResponseType, oauth_error
from app.models.oauth_client import CLIENT_ID, OAuthClient
from app.oauth2.caller import CodeBinding
from app.oauth2.requests import parse_scope

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_PARAMETERS = frozenset(
    ("response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method")
)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request whose response may be a redirect, since its client has registered the redirect URI."""

    client: OAuthClient
    parameters: dict[str, str]
    repeated: frozenset[str]

    def check(self) -> None:
        """Raise the OAuthError to redirect with if a parameter is not valid."""
        if self.repeated:
            raise InvalidRequest("A parameter is repeated.")
        response_type = self.parameters.get("response_type")
        if response_type is None:
            raise InvalidRequest("response_type is missing.")
        if response_type != "code":
            raise UnsupportedResponseType
        method, challenge = (self.parameters.get(name, "") for name in ("code_challenge_method", "code_challenge"))
        if method != "S256" or not _CHALLENGE.fullmatch(challenge):
            raise InvalidRequest("PKCE is required: code_challenge, with code_challenge_method S256.")
        if "scope" in self.parameters:
            parse_scope(self.parameters["scope"])

    @property
    def binding(self) -> CodeBinding:
        return CodeBinding(self.client.id, self.parameters["redirect_uri"], self.parameters["code_challenge"])

    def refused(self, error: OAuthError, issuer: str) -> str:
        """The redirect that reports an error (section 4.1.2.1)."""
        body = oauth_error(error)
        return self.answered(issuer, error=body["error"], error_description=body["error_description"])

    def answered(self, issuer: str, **values: str) -> str:
        """The redirect URI with these values, the client's state, and our issuer (RFC 9207 section 2)."""
        state = {"state": self.parameters["state"]} if "state" in self.parameters else {}
        uri = self.parameters["redirect_uri"]
        return f"{uri}{'&' if '?' in uri else '?'}{urlencode({**values, **state, 'iss': issuer})}"


def read_request(session: Session, query: str) -> AuthorizationRequest:
    """The request in a query, or UnknownClient, after which no redirect is allowed (section 4.1.2.1)."""
    pairs = [(name, value) for name, value in parse_qsl(query) if name in _PARAMETERS]
    names = [name for name, _ in pairs]
    repeated = frozenset(name for name in names if names.count(name) > 1)
    parameters = {name: value for name, value in pairs if name not in repeated}
    client_id, redirect_uri = (parameters.get(name, "") for name in ("client_id", "redirect_uri"))
    client = session.get(OAuthClient, client_id) if re.fullmatch(CLIENT_ID, client_id) else None
    if client is None or not client.allows(redirect_uri):
        raise UnknownClient
    return AuthorizationRequest(client, parameters, repeated)

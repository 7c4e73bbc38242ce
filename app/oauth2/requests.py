"""Parsing OAuth requests: forms (RFC 6749 appendices A and B), scopes (section 3.3) and authorization (section 4.1)."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from urllib.parse import parse_qs, parse_qsl, urlencode

from pydantic import MISSING, Field, SecretStr
from sqlmodel import Session, SQLModel

from app.core.errors import UnknownClient, found
from app.core.oauth_errors import InvalidRequest, InvalidScope, OAuthError, UnsupportedResponseType, oauth_error
from app.core.scopes import SCOPES, in_order
from app.models.base import described
from app.models.oauth_client import CLIENT_ID, OAuthClient
from app.models.refresh_token import MAX_LABEL, SessionSnapshot

_CLIENT_ID = "Code grant: the app's id. Refresh grant: as at the sign-in, or none. Password grant: any label."

Username = Annotated[str, Field(description="Your e-mail address.", examples=["ada@example.com"])]
DeviceName = Annotated[str, Field(description="Its name in the list of sessions.", examples=["Ada's phone"])]


class _CodeAndRefresh(SQLModel):
    # An empty example keeps Swagger UI from sending an optional parameter.
    code: str | MISSING = described("Code grant: the code in the redirect.", "", default=MISSING)
    redirect_uri: str | MISSING = described("Code grant: as in the authorization request.", "", default=MISSING)
    code_verifier: str | MISSING = described("Code grant: the secret behind code_challenge.", "", default=MISSING)
    refresh_token: str | MISSING = described("Refresh grant: the newest one that you have.", "", default=MISSING)
    scope: str | MISSING = described("Separated by spaces. Left out: all of yours.", "", default=MISSING)
    client_id: str | MISSING = described(_CLIENT_ID, "app", default=MISSING, max_length=MAX_LABEL)


class CodeTokenForm(_CodeAndRefresh):
    """The parameters of a token request (RFC 6749 sections 4.1.3 and 6, RFC 7636 section 4.5)."""

    grant_type: Literal["authorization_code", "refresh_token"] = Field(description="How to get tokens.")


class TokenForm(_CodeAndRefresh):
    """The parameters of a token request, with those of the password grant (RFC 6749 section 4.3.2)."""

    grant_type: Literal["authorization_code", "refresh_token", "password"] = described("How to get tokens.", "password")
    username: Username | MISSING = MISSING
    password: SecretStr | MISSING = described("Password grant: your password.", "violet-tandem-harbor", default=MISSING)
    device: DeviceName | MISSING = MISSING


class CookieForm(SQLModel):
    """The parameters of a browser's sign-in."""

    username: Username
    password: SecretStr = described("Your password.", "violet-tandem-harbor")
    device: DeviceName | MISSING = MISSING


class RevocationForm(SQLModel):
    """The parameters of revocation and introspection requests (RFC 7009 section 2.1, RFC 7662 section 2.1)."""

    token: str = described("An access or refresh token.", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", min_length=1)
    token_type_hint: str | MISSING = described("Not needed.", "refresh_token", default=MISSING)


# The parameters that may neither be repeated nor be in the URL. All others are ignored.
PARAMETERS = frozenset({*TokenForm.model_fields, *RevocationForm.model_fields, "client_secret"})


def parse_form(body: bytes) -> dict[str, str]:
    """Parse a form by RFC 6749 appendix B: UTF-8, no parameter twice, empty ones dropped; else InvalidRequest."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise InvalidRequest("The body is not a form in UTF-8.") from None
    names = [name for name, _ in pairs if name in PARAMETERS]
    if len(names) != len(set(names)):
        raise InvalidRequest("A parameter is repeated.")
    if any("\0" in name + value for name, value in pairs):
        raise InvalidRequest("A parameter contains a NUL character.")
    return {name: value for name, value in pairs if name in PARAMETERS and value}


def parse_scope(scope: str) -> frozenset[str]:
    """The known scopes of a scope parameter (RFC 6749 section 3.3), or InvalidScope."""
    names = frozenset(scope.split(" "))
    if not names <= SCOPES.keys():
        raise InvalidScope
    return names


def scope_at_login(requested: str | None, role_scopes: list[str]) -> str | None:
    """The scope that a new session stores: None for all of the role's, else the requested ones that the role has."""
    if requested is None:
        return None
    granted = parse_scope(requested).intersection(role_scopes)
    if not granted:
        raise InvalidScope
    return " ".join(in_order(granted))


def scope_of_pair(snapshot: SessionSnapshot, requested: str | None) -> frozenset[str]:
    """The scopes of a new token pair. A refresh may request fewer than the session has (RFC 6749 section 6)."""
    granted = snapshot.scopes()
    if requested is not None:
        names = parse_scope(requested)
        if not names <= frozenset(snapshot.role_scopes if snapshot.scope is None else snapshot.scope.split()):
            raise InvalidScope
        granted &= names
    if not granted:
        raise InvalidScope(f"The role {snapshot.role} allows none of these scopes.")
    return granted


class RotationRequest(NamedTuple):
    """A token request with a refresh token or a code (RFC 6749 sections 6 and 4.1.3).

    `arrived` is when it was complete, before it waited for a slot: the grace period is checked against that time.
    """

    token: str
    arrived: datetime
    client_id: str | None = None
    scope: str | None = None


# ---- Authorization requests: RFC 6749 section 4.1.1, RFC 7636 section 4.3 ----

# Their parameters. All others are ignored.
_IN_QUERY = {"response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method"}


class CodeBinding(NamedTuple):
    """The values that an authorization code is bound to: its client must present all of them (RFC 7636 section 4.6)."""

    client_id: str
    redirect_uri: str
    code_challenge: str


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request whose response may be a redirect, since its client has registered the redirect URI."""

    client: OAuthClient
    parameters: dict[str, str]
    repeats_parameter: bool

    def check(self) -> None:
        """Raise the OAuthError to redirect with if a parameter is not valid."""
        if self.repeats_parameter:
            raise InvalidRequest("A parameter is repeated.")
        response_type = found(self.parameters.get("response_type"), InvalidRequest("response_type is missing."))
        if response_type != "code":
            raise UnsupportedResponseType
        method, challenge = (self.parameters.get(name, "") for name in ("code_challenge_method", "code_challenge"))
        if method != "S256" or not re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge):
            raise InvalidRequest("PKCE is required: code_challenge, with code_challenge_method S256.")
        if "scope" in self.parameters:
            parse_scope(self.parameters["scope"])

    def error_redirect(self, error: OAuthError, issuer: str) -> str:
        """The redirect that reports an error (RFC 6749 section 4.1.2.1)."""
        body = oauth_error(error)
        return self.redirect(issuer, error=body["error"], error_description=body["error_description"])

    def redirect(self, issuer: str, **values: str) -> str:
        """The redirect URI with these values, the client's state, and our issuer (RFC 9207 section 2)."""
        state = {"state": self.parameters["state"]} if "state" in self.parameters else {}
        uri = self.parameters["redirect_uri"]
        return f"{uri}{'&' if '?' in uri else '?'}{urlencode({**values, **state, 'iss': issuer})}"


def read_authorization_request(session: Session, query: str) -> AuthorizationRequest:
    """The request in a query, or UnknownClient, after which no redirect is allowed (RFC 6749 section 4.1.2.1)."""
    sent = {name: values for name, values in parse_qs(query).items() if name in _IN_QUERY}
    parameters = {name: values[0] for name, values in sent.items() if len(values) == 1}
    client_id, redirect_uri = (parameters.get(name, "") for name in ("client_id", "redirect_uri"))
    client = session.get(OAuthClient, client_id) if re.fullmatch(CLIENT_ID, client_id) else None
    if client is None or not client.allows(redirect_uri):
        raise UnknownClient
    return AuthorizationRequest(client, parameters, repeats_parameter=len(parameters) < len(sent))

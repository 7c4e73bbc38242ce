"""Signing in at the identity provider: the authorization code flow with PKCE, state and nonce.

OpenID Connect Core section 3.1, RFC 7636, RFC 9207. A login in progress is stored in the person's browser only, in a
signed cookie.
"""

import hmac
import secrets
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus, urlencode

from app.core.crypto import ValueSigner, sha256_base64url
from app.core.errors import AppError, InvalidToken, found
from app.core.logs import security_event
from app.core.settings import Settings
from app.oauth2.jwts import parse_jwt
from app.oidc.provider import Provider
from app.oidc.tokens import ProviderClaims, id_token_claims

LOGIN_TTL = timedelta(minutes=10)


# These errors are shown by a page, which words them by their types, and never as a problem document.


class SignInFailed(AppError, status=400, title="Not signed in"):
    """The provider's response is not valid."""


class SignInStale(SignInFailed):
    """The login has expired, was used before, or began in another browser (login CSRF)."""


class SignInRefused(SignInFailed):
    """The provider denied the login, or the person canceled it."""


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login that waits for the provider's response, as the browser's cookie stores it."""

    state: str
    path: str  # the page to show afterward
    started_at: int
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    code_verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))


class LoginFlow:
    """The flow, with Muster's pages as the client: a confidential one if there is a secret, else a public one."""

    def __init__(self, provider: Provider, signer: ValueSigner, settings: Settings) -> None:
        self.provider, self._signer, self._settings = provider, signer, settings
        redirect_uri = f"{settings.public_url}/api/auth/oidc/callback"
        self._client = {"client_id": settings.oidc_client_id[0], "redirect_uri": redirect_uri}
        self._client_secret = settings.oidc_client_secret

    # ---- The authentication request: section 3.1.2.1 ----

    async def begin(self, *, origin: str, path: str, passed_on: Mapping[str, str], now: datetime) -> tuple[str, str]:
        """The provider's URL to redirect to, and the cookie that stores the pending login.

        `passed_on` has the parameters that the pages set: `prompt` and `login_hint` (section 3.1.2.1).
        """
        state = self._signer.sign({"id": secrets.token_urlsafe(16), "origin": origin}, "login state")
        login = PendingLogin(state=state, path=path, started_at=int(now.timestamp()))
        pkce = {"code_challenge": sha256_base64url(login.code_verifier), "code_challenge_method": "S256"}
        wanted = {"response_type": "code", "scope": "openid email profile", "state": state, "nonce": login.nonce}
        query = {**passed_on, **wanted, **self._client, **pkce}
        url = await self.provider.endpoint("authorization_endpoint")
        url += f"{'&' if '?' in url else '?'}{urlencode(query)}"
        return url, self._signer.sign(asdict(login), "login")

    # ---- The authentication response: sections 3.1.2.5 to 3.1.3.7 ----

    def origin_of(self, login_state: str) -> str:
        """The origin of the page that began a login, known even if the browser lost the cookie. Proves nothing else."""
        value = self._signer.verify(login_state, "login state")
        return str(value["origin"]) if value else ""

    def resume(self, cookie: str, *, login_state: str, now: datetime) -> PendingLogin:
        """The pending login of this browser, if the response belongs to it; else SignInStale."""
        login = PendingLogin(**found(self._signer.verify(cookie, "login"), SignInStale))
        is_expired = now.timestamp() > login.started_at + LOGIN_TTL.total_seconds()
        if is_expired or not hmac.compare_digest(login.state.encode(), login_state.encode()):
            raise SignInStale
        return login

    async def finish(self, login: PendingLogin, query: Mapping[str, str], now: datetime) -> tuple[ProviderClaims, str]:
        """The person who signed in, and their access token for userinfo. `query` is that of the redirect (`code` and
        `iss`, or `error`)."""
        metadata = await self.provider.metadata()
        is_iss_sent = metadata.get("authorization_response_iss_parameter_supported") is True
        if query.get("iss", None if is_iss_sent else self.provider.issuer) != self.provider.issuer:
            raise SignInFailed  # RFC 9207 section 2.4: the response of another provider
        if "error" in query:
            raise SignInRefused
        match await self._exchange(query.get("code", ""), login.code_verifier):
            case {"id_token": str(id_token), "access_token": str(access_token)}:
                try:
                    return await self._validate(id_token, access_token, nonce=login.nonce, now=now), access_token
                except InvalidToken:
                    security_event("ID token rejected")
                    raise SignInFailed from None
        raise SignInFailed  # the code was used before, has expired or belongs to another client: the log has the status

    async def _exchange(self, code: str, code_verifier: str) -> dict[str, Any]:
        """The token response (RFC 6749 section 4.1.3); empty if the provider refuses the code."""
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": code_verifier, **self._client}
        headers = {}
        if self._client_secret is not None:  # RFC 6749 section 2.3.1
            client_id = form.pop("client_id")  # in the header instead
            basic = f"{quote_plus(client_id)}:{quote_plus(self._client_secret)}"
            headers = {"Authorization": f"Basic {b64encode(basic.encode()).decode()}"}
        return await self.provider.request("token_endpoint", headers, form)

    async def _validate(self, id_token: str, access_token: str, *, nonce: str, now: datetime) -> ProviderClaims:
        """The claims of the ID token, with the role of the access token: Keycloak names realm roles only there."""
        jwt = parse_jwt(id_token)
        claims = id_token_claims(jwt, self.provider.issuer, self._settings, nonce=nonce, access_token=access_token)
        keys = await self.provider.keys_for(jwt.header)
        if not claims.access.is_current(now) or not any(key.has_signed(id_token) for key in keys):
            raise InvalidToken
        try:
            bearer = await self.provider.verify(access_token, now)
        except InvalidToken:  # an opaque token, or one for another audience
            return claims
        if bearer.subject != claims.subject:
            raise InvalidToken
        return replace(claims, role=bearer.role)

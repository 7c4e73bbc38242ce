"""Signing in at the identity provider: authorization code with PKCE, state and nonce (OpenID Connect Core section 3.1,
RFC 7636, RFC 9207). What ties an answer to the browser that asked is in that browser, signed, and nowhere else."""

import hmac
import re
import secrets
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

import httpx

from app.core.crypto import ValuesSigner
from app.core.errors import AppError
from app.core.logs import security_event
from app.oauth2.access_tokens import InvalidAccessToken, is_current
from app.oidc.provider import Provider
from app.oidc.tokens import ForeignClaims, digest, id_claims_of, take_apart

HANDSHAKE_TTL = timedelta(minutes=10)
_SCOPE = "openid email profile"
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


def local_path(path: str, otherwise: str = "/operations") -> str:
    """`path` if it stays on this host, else `otherwise`: the address that says where to go next can be forged."""
    return path if _LOCAL_PATH.fullmatch(path) else otherwise


class SignInFailed(AppError):
    """The provider's answer does not hold. Told by a page, never by a problem document."""

    status, type, title, detail = 400, "sign-in-failed", "Not signed in", "You could not be signed in."


class SignInStale(SignInFailed):
    """Too late, once more, or an answer that another browser asked for (login CSRF)."""

    type = "sign-in-stale"


class SignInRefused(SignInFailed):
    type = "sign-in-refused"  # the provider says no, or the person did


@dataclass(frozen=True, slots=True)
class Handshake:
    """One attempt, as it waits in the browser: what has to come back, and to which page the person goes."""

    state: str
    nonce: str
    verifier: str
    path: str
    began_at: str


@dataclass(frozen=True, slots=True)
class Person:
    """Who has signed in, and the access token to ask userinfo with. Not every ID token tells roles."""

    claims: ForeignClaims
    access_token: str
    tells_roles: bool


class CodeFlow:
    """The pages as a client of the provider: confidential with a secret, else public."""

    def __init__(
        self, provider: Provider, signer: ValuesSigner, *, client_id: str, client_secret: str | None, redirect_uri: str
    ) -> None:
        self.provider = provider
        self._signer = signer
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri

    # ---- There ----

    async def begin(self, origin: str, path: str, now: datetime) -> tuple[str, str]:
        """The provider's address to go to, and what the browser keeps until it is back."""
        state = self._signer.sign([secrets.token_urlsafe(16), origin], "state")
        nonce, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        handshake = Handshake(state, nonce, verifier, path, str(int(now.timestamp())))
        request = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": _SCOPE,
            "state": state,
            "nonce": nonce,
            "code_challenge": digest(verifier),
            "code_challenge_method": "S256",
        }
        address = httpx.URL(await self.provider.endpoint("authorization_endpoint"))
        return str(address.copy_merge_params(request)), self._signer.sign(astuple(handshake), "handshake")

    # ---- And back ----

    def origin_of(self, state: str) -> str:
        """Whose page began this, even if its browser has forgotten: nobody is signed in by that."""
        values = self._signer.verify(state, "state")
        return values[1] if values else ""

    def resume(self, kept: str, state: str, now: datetime) -> Handshake:
        """What this browser kept, if the answer is to that; else SignInStale."""
        values = self._signer.verify(kept, "handshake")
        if values is None:
            raise SignInStale
        handshake = Handshake(*values)
        is_late = now.timestamp() > int(handshake.began_at) + HANDSHAKE_TTL.total_seconds()
        if is_late or not hmac.compare_digest(handshake.state.encode(), state.encode()):
            raise SignInStale
        return handshake

    async def redeem(self, handshake: Handshake, answer: Mapping[str, str], now: datetime) -> Person:
        """Who signed in, by the provider's answer in the address (`code` and `iss`, or `error`)."""
        document = await self.provider.metadata()
        says_iss = document.get("authorization_response_iss_parameter_supported") is True
        if answer.get("iss", None if says_iss else self.provider.issuer) != self.provider.issuer:
            raise SignInFailed  # RFC 9207 section 2.4: another provider's answer
        if "error" in answer:
            raise SignInRefused
        match await self._tokens(answer.get("code", ""), handshake.verifier):
            case {"id_token": str(id_token), "access_token": str(access_token)}:
                try:
                    return await self._person(id_token, access_token, handshake.nonce, now)
                except InvalidAccessToken:
                    security_event("an ID token was refused")
                    raise SignInFailed from None
            case _:  # a code that is used or too old, or another client's; the log has more
                raise SignInFailed

    async def _tokens(self, code: str, verifier: str) -> dict[str, Any] | None:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "client_id": self._client_id,
            "code_verifier": verifier,
        }
        headers = {}
        if self._client_secret is not None:  # RFC 6749 section 2.3.1
            basic = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
            headers = {"Authorization": f"Basic {b64encode(basic.encode()).decode()}"}
            del form["client_id"]
        return await self.provider.ask("token_endpoint", headers, form)

    async def _person(self, id_token: str, access_token: str, nonce: str, now: datetime) -> Person:
        """Keycloak puts realm roles into access tokens alone."""
        jwt = take_apart(id_token)
        claims = id_claims_of(jwt, self.provider.issuer, self._client_id, nonce, access_token)
        if not is_current(claims.access, now) or not await self.provider.has_signed(jwt):
            raise InvalidAccessToken
        try:
            bearer = await self.provider.verify(access_token, now)
        except InvalidAccessToken:  # it is for others: opaque, or of another audience
            return Person(claims, access_token, "realm_access" in jwt.payload)
        if bearer.subject != claims.subject:
            raise InvalidAccessToken
        return Person(replace(claims, realm_roles=bearer.realm_roles), access_token, tells_roles=True)

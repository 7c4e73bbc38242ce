"""The identity provider (OpenID Connect Core and Discovery 1.0): its keys, its access tokens, its userinfo.

It may be slow or away: it is asked only for what cannot be known without it, by all who wait for it together, and so
seldom that a stranger's tokens make nobody a load on it. Nobody waits for it in a slot of the database.
"""

import asyncio
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from time import monotonic
from typing import Any, TypeGuard
from urllib.parse import urlsplit
from uuid import UUID

import anyio
import httpx
from cachetools import LRUCache, TTLCache
from pydantic import TypeAdapter, ValidationError

from app.errors import ProviderUnavailable
from app.jwts import ALGORITHMS, Jwt, VerifyingKey, take_apart, verifying_keys
from app.models import Name, email_address
from app.security import ACCESS_TOKEN_TYPES, AccessClaims, InvalidAccessToken, in_time, whole
from app.strict_json import parse

log = logging.getLogger("muster.oidc")

TIME_TO_ANSWER = 5  # seconds
MAX_ANSWER = 256 * 1024  # bytes
KEYS_TTL = 3600  # seconds that a key lives which the provider has taken back
REFETCH, BURST = 10, 5  # the keys are asked for once in so many seconds, after a few times at once
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, KeyError, TypeError, AttributeError)
_UNKNOWN = UUID(int=0)
_LAST_MOMENT = 253_402_300_799  # of the year 9999
_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class Profile:
    """Who somebody is to others, as far as the provider says it."""

    email: str | None
    is_verified: bool
    name: str | None


@dataclass(frozen=True, slots=True)
class ForeignClaims:
    """An access token of the provider. `access` is what it is here, but for the ids that only the database knows; its
    auth_time is 0 where the provider does not say when the person signed in."""

    issuer: str
    subject: str
    realm_roles: frozenset[str]
    profile: Profile
    access: AccessClaims


class Provider:
    """Lives on the loop."""

    def __init__(self, issuer: str, audience: str, clients: Collection[str]) -> None:
        self.issuer = issuer
        self._audience = audience
        self._clients = clients
        self._http = httpx.AsyncClient(
            timeout=TIME_TO_ANSWER, headers={"Accept": "application/json", "Accept-Encoding": "identity"}
        )
        self._document: dict[str, Any] = {}
        self._jwks: Any = None
        self._keys: list[VerifyingKey] = []
        self._fetched_at = -math.inf
        self._begun = self._answered = 0  # looks at the keys: how many there were, and which was the last to succeed
        self._fetching: asyncio.Task[bool] | None = None
        self._allowance, self._counted_at = float(BURST), monotonic()
        self.issued = lru_cache(maxsize=2048)(self._names_issuer)  # our own tokens are looked at once
        self._verified: LRUCache[str, ForeignClaims] = LRUCache(4096)
        self._without_address: TTLCache[str, bool] = TTLCache(4096, REFETCH)

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
        await self._http.aclose()

    # ---- Access tokens: RFC 9068 section 4, or as Keycloak makes them ----

    def _names_issuer(self, token: str) -> bool:
        """Whether the token says that it is the provider's; nothing is asked about others."""
        try:
            return bool(take_apart(token).payload.get("iss") == self.issuer)
        except InvalidAccessToken:
            return False

    async def verify(self, token: str, now: datetime) -> ForeignClaims:
        """The claims; InvalidAccessToken, or ProviderUnavailable where only the provider could tell."""
        self._renew()
        claims = self._verified.get(token)
        if claims is None:
            jwt = take_apart(token)
            claims = self._claims(jwt)
            if not in_time(claims.access, now) or not await self.has_signed(jwt):
                raise InvalidAccessToken
            self._verified[token] = claims
        if not in_time(claims.access, now):
            raise InvalidAccessToken
        return claims

    def _claims(self, jwt: Jwt) -> ForeignClaims:
        """What the token claims, if it is meant for us: the signature is still to be checked."""
        payload = jwt.payload
        audience = payload.get("aud")
        client = payload.get("azp", payload.get("client_id"))
        scope = payload.get("scope", "")
        if not _is_bearer_token(jwt) or not isinstance(scope, str):
            raise InvalidAccessToken
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise InvalidAccessToken
        if not isinstance(client, str) or (self._clients and client not in self._clients):
            raise InvalidAccessToken
        return claims_of(payload, self.issuer, client, frozenset(scope.split()))

    # ---- Keys: OpenID Connect Discovery section 4, RFC 7517 ----

    async def has_signed(self, jwt: Jwt) -> bool:
        """InvalidAccessToken if no key of its fits; ProviderUnavailable if only the provider could tell."""
        begun = self._begun  # a look that began before now may have missed a new key
        while (key := self._known_key(jwt)) is None and self._answered <= begun:
            looking = self._look()
            if looking is None or not await asyncio.shield(looking):
                raise ProviderUnavailable(retry_after=REFETCH)
        if key is None:
            raise InvalidAccessToken
        return key.has_signed(jwt)

    def _known_key(self, jwt: Jwt) -> VerifyingKey | None:
        """The key that the header names; None if it may be a new one, InvalidAccessToken if none will ever fit."""
        key_id, algorithm = jwt.header.get("kid"), jwt.header.get("alg")
        if algorithm not in ALGORITHMS or "crit" in jwt.header or not isinstance(key_id, str | None):
            raise InvalidAccessToken
        named = [key for key in self._keys if key_id is None or key.id == key_id]
        fitting = [key for key in named if key.algorithm == algorithm]
        if named and (not fitting or (key_id is None and len(self._keys) > 1)):
            raise InvalidAccessToken
        return fitting[0] if fitting else None

    def _may_fetch(self) -> bool:
        """Count one more look at the provider, if it is not too much."""
        now = monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._counted_at) / REFETCH)
        self._counted_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _renew(self) -> None:
        """Nobody waits for it: what is known holds until there is something newer."""
        if self._keys and monotonic() - self._fetched_at > KEYS_TTL:
            self._look()

    def _look(self) -> asyncio.Task[bool] | None:
        """The look at the provider's keys that is under way, or a new one; None if that would be one too many."""
        if self._fetching is None and self._may_fetch():
            self._begun += 1
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> bool:
        """Whether the provider said what its keys are."""
        try:
            with anyio.fail_after(TIME_TO_ANSWER):
                document = await self._get(f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration")
                if document["issuer"] != self.issuer:
                    raise ValueError("its document names another issuer than OIDC_ISSUER")
                jwks = await self._get(self._with_tls(document["jwks_uri"]))
            keys = verifying_keys(jwks)
            if not keys:
                raise ValueError("it has none that we take")
        except _FAILURES as error:
            log.warning("the identity provider cannot be asked for its keys: %s: %s", type(error).__name__, error)
            return False
        finally:
            self._fetching = None
        if jwks != self._jwks:
            self._verified.clear()  # what a key has signed that is gone is nothing any more
        self._document, self._jwks, self._keys = document, jwks, keys
        self._fetched_at, self._answered = monotonic(), self._begun
        return True

    # ---- Userinfo: OpenID Connect Core section 5.3 ----

    async def profile(self, token: str, claims: ForeignClaims) -> Profile:
        """Who that is, according to the token; else according to userinfo, which is not asked again and again."""
        if claims.profile.email or claims.subject in self._without_address:
            return claims.profile
        told = await self.ask("userinfo_endpoint", {"Authorization": f"Bearer {token}"}) or {}
        profile = _profile(told) if told.get("sub") == claims.subject else claims.profile
        if profile.email is None:
            self._without_address[claims.subject] = True
        return profile

    # ---- What its document says: Discovery section 3 ----

    async def metadata(self) -> dict[str, Any]:
        """Not much older than the keys; ProviderUnavailable if it was never read."""
        self._renew()
        looking = None if self._document else self._look()
        if not self._document and (looking is None or not await asyncio.shield(looking)):
            raise ProviderUnavailable(retry_after=REFETCH)
        return self._document

    async def endpoint(self, name: str) -> str:
        try:
            return self._with_tls((await self.metadata())[name])
        except _FAILURES:
            raise ProviderUnavailable(retry_after=REFETCH) from None

    async def ask(
        self, name: str, headers: dict[str, str], form: dict[str, str] | None = None
    ) -> dict[str, Any] | None:
        """What an endpoint answers; None if it refuses, ProviderUnavailable where there is no answer to that."""
        address = await self.endpoint(name)
        try:
            with anyio.fail_after(TIME_TO_ANSWER):
                return await self._get(address, headers, form)
        except _FAILURES as error:
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code in {400, 401, 403}
            log.warning("the identity provider %s at its %s", "refuses" if refused else "gives no answer", name)
            if refused:
                return None
            raise ProviderUnavailable(retry_after=REFETCH) from None

    # ---- The parts ----

    def _with_tls(self, address: str) -> str:
        """An address of the document: never without TLS where the issuer has it."""
        if urlsplit(address).scheme not in {"https", urlsplit(self.issuer).scheme}:
            raise ValueError("its document names an endpoint without TLS")
        return address

    async def _get(
        self, address: str, headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> dict[str, Any]:
        body = b""
        async with self._http.stream("POST" if form else "GET", address, headers=headers, data=form) as answer:
            answer.raise_for_status()  # a redirect is none of the answers that we take
            async for part in answer.aiter_raw():
                body += part
                if len(body) > MAX_ANSWER:
                    raise ValueError("its answer is too large")
        document = parse(body)
        if not isinstance(document, dict):
            raise ValueError("its answer is no JSON object")  # noqa: TRY004  # of what was answered, not of our types
        return document


def claims_of(payload: dict[str, Any], issuer: str, client_id: str, scope: frozenset[str]) -> ForeignClaims:
    """What an access or an ID token of this issuer says; InvalidAccessToken if that is not enough."""
    subject = payload.get("sub")
    if payload.get("iss") != issuer or not _is_subject(subject):
        raise InvalidAccessToken
    access = AccessClaims(
        subject=_UNKNOWN,
        session_id=_UNKNOWN,
        generation=0,
        client_id=client_id,
        scope=scope,
        auth_time=_moment(payload.get("auth_time", 0)),
        issued_at=_moment(payload.get("iat")),
        expires_at=_moment(payload.get("exp")),
        not_before=_moment(payload.get("nbf", payload.get("iat"))),
        token_id="",
    )
    return ForeignClaims(issuer, subject, _realm_roles(payload), _profile(payload), access)


def _is_bearer_token(jwt: Jwt) -> bool:
    """By the header (RFC 9068), or by Keycloak's claim; never an ID token, a refresh token or one bound to a key of its
    client (RFC 7800), which is worth nothing without the proof."""
    header, claim = jwt.header.get("typ", "JWT"), jwt.payload.get("typ")
    named = header in ACCESS_TOKEN_TYPES or (header == "JWT" and claim is not None)
    return named and claim in (None, "Bearer") and "cnf" not in jwt.payload


def _is_subject(subject: object) -> TypeGuard[str]:
    """OpenID Connect Core section 2: at most 255 ASCII characters."""
    return isinstance(subject, str) and 0 < len(subject) <= 255 and subject.isascii() and subject.isprintable()


def _moment(value: object) -> int:
    """A NumericDate that is a time in the calendar, too."""
    moment = whole(value)
    if not 0 <= moment <= _LAST_MOMENT:
        raise InvalidAccessToken
    return moment


def _realm_roles(payload: dict[str, Any]) -> frozenset[str]:
    match payload.get("realm_access"):
        case {"roles": list(roles)}:
            return frozenset(role for role in roles if isinstance(role, str))
    return frozenset()


def _profile(claims: dict[str, Any]) -> Profile:
    """OpenID Connect Core section 5.1. What is no address or no name of ours is none."""
    try:
        email = email_address(claims["email"]) if isinstance(claims.get("email"), str) else None
    except ValueError:
        email = None
    try:
        name = _NAME.validate_python(claims.get("name"))
    except ValidationError:
        name = None
    return Profile(email, claims.get("email_verified") is True, name)

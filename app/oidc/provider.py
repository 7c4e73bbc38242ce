"""The identity provider (OpenID Connect Core and Discovery 1.0): its keys, its access tokens, its userinfo.

It may be slow or away: it is asked only for what cannot be known without it, by all who wait for it together, and so
seldom that a stranger's tokens make nobody a load on it. Nobody waits for it in a slot of the database.
"""

import asyncio
import logging
import math
from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
from cachetools import LRUCache, TTLCache

from app.core.errors import ProviderUnavailable
from app.core.strict_json import parse
from app.oauth2.access_tokens import InvalidAccessToken, is_current
from app.oidc.tokens import (
    ALGORITHMS,
    MAX_LENGTH,
    ForeignClaims,
    Jwt,
    Profile,
    VerifyingKey,
    claims_of,
    profile_of,
    take_apart,
    verifying_keys,
)

log = logging.getLogger("muster.oidc")

TIME_TO_ANSWER = 5  # seconds
MAX_ANSWER = 256 * 1024  # bytes
KEYS_TTL = 3600  # seconds that a key lives at most which the provider has taken back: after half, there is a look
REFETCH, BURST = 10, 5  # the keys are asked for once in so many seconds, after a few times at once
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, KeyError, TypeError, AttributeError)


def _issuer_of(token: str) -> object:
    try:
        return take_apart(token).payload.get("iss")
    except InvalidAccessToken:
        return None


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
        self._is_away = False
        self._allowance, self._counted_at = float(BURST), monotonic()
        self._issuer_of = lru_cache(maxsize=2048)(_issuer_of)  # our own tokens are looked at once
        self._verified: LRUCache[str, ForeignClaims] = LRUCache(4096)
        self.first_sights: TTLCache[Any, asyncio.Task[None]] = TTLCache(
            4096, REFETCH
        )  # app/oidc/accounts.py keeps them

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
        await self._http.aclose()

    # ---- Access tokens ----

    def issued(self, token: str) -> bool:
        """Whether the token says that it is the provider's; nothing is asked about others."""
        return len(token) <= MAX_LENGTH and self._issuer_of(token) == self.issuer

    async def verify(self, token: str, now: datetime) -> ForeignClaims:
        """The claims; InvalidAccessToken, or ProviderUnavailable where only the provider could tell."""
        await self._renew()
        claims = self._verified.get(token)
        if claims is None:
            jwt = take_apart(token)
            claims = claims_of(jwt, self.issuer, self._audience, self._clients)
            if not is_current(claims.access, now) or not await self.has_signed(jwt):
                raise InvalidAccessToken
            self._verified[token] = claims
        if not is_current(claims.access, now):
            raise InvalidAccessToken
        return claims

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

    async def _renew(self) -> None:
        """Nobody waits for it while the keys are young, nor while the provider is away: what is known holds on then."""
        age = monotonic() - self._fetched_at
        if self._keys and age > KEYS_TTL / 2:
            looking = self._look()
            if looking is not None and age > KEYS_TTL and not self._is_away:
                await asyncio.shield(looking)

    def _look(self) -> asyncio.Task[bool] | None:
        """The look at the provider's keys that is under way, or a new one; None if that would be one too many."""
        if self._fetching is None and self._may_fetch():
            self._begun += 1
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> bool:
        """Whether the provider said what its keys are. What it no longer publishes is over, also if nothing is left."""
        try:
            with anyio.fail_after(TIME_TO_ANSWER):
                document = await self._get(f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration")
                if document["issuer"] != self.issuer:
                    raise ValueError("its document names another issuer than OIDC_ISSUER")
                jwks = await self._get(self._with_tls(document["jwks_uri"]))
            keys = verifying_keys(jwks)
        except _FAILURES as error:
            log.warning("the identity provider cannot be asked for its keys: %s: %s", type(error).__name__, error)
            self._is_away = True
            return False
        finally:
            self._fetching = None
        if jwks != self._jwks:
            self._verified.clear()  # what a key has signed that is gone is nothing any more
        self._document, self._jwks, self._keys = document, jwks, keys
        self._fetched_at, self._is_away = monotonic(), False
        if not keys:
            log.warning("the identity provider publishes no key that is taken here")
            return False
        self._answered = self._begun
        return True

    # ---- Userinfo: OpenID Connect Core section 5.3 ----

    async def profile(self, token: str, claims: ForeignClaims) -> Profile:
        """Who that is, according to the token; else according to userinfo."""
        if claims.profile.email:
            return claims.profile
        told = await self.ask("userinfo_endpoint", {"Authorization": f"Bearer {token}"}) or {}
        return profile_of(told) if told.get("sub") == claims.subject else claims.profile

    # ---- What its document names: Discovery section 3 ----

    async def metadata(self) -> dict[str, Any]:
        """Not much older than the keys; ProviderUnavailable if it was never read."""
        await self._renew()
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
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            log.warning("the identity provider answers at its %s: %s", name, status or type(error).__name__)
            if status in {400, 401, 403}:
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

"""The external identity provider as Muster uses it: its metadata and keys, its access tokens, and its endpoints.

No database session is open while Muster waits for the provider, whose responses are cached.
"""

import asyncio
import logging
import math
from datetime import datetime
from functools import lru_cache
from time import monotonic
from typing import Any

import anyio
from cachetools import LRUCache, TTLCache

from app.core.errors import InvalidToken, ProviderUnavailable, found
from app.core.settings import Settings
from app.core.strict_json import parse
from app.oauth2.jwts import MAX_LENGTH, JwtKey, parse_jwks, parse_jwt, select_keys
from app.oidc.tokens import Profile, ProviderClaims, access_token_claims

log = logging.getLogger("muster.oidc")

TIMEOUT = 5  # seconds that the provider may take to respond
COOLDOWN = 5  # seconds between the end of one fetch, successful or not, and the next
MAX_AGE = 3600  # seconds until keys are fetched again: a key that the provider withdrew is valid no longer than that

_ParsedToken = tuple[dict[str, Any], ProviderClaims, JwtKey | None]  # its header, claims, and who signed it


class Provider:
    """The identity provider whose issuer is OIDC_ISSUER. For use on the event loop only.

    Its metadata and keys are shared by all requests of this process. They are fetched when first needed, when they are
    MAX_AGE old, and when a token names an unknown key. All requests that wait share one fetch, and the next one begins
    COOLDOWN after its end at the earliest, so that tokens with invented keys put no load on the provider. While the
    provider is unavailable, the keys fetched last stay valid.
    """

    def __init__(self, issuer: str, settings: Settings) -> None:
        import httpx  # noqa: PLC0415  # 4 MB that a service without a provider need not hold

        self.issuer, self._settings = issuer, settings
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._http = httpx.AsyncClient(timeout=TIMEOUT, headers=headers)
        self._metadata: dict[str, Any] | None = None
        self._keys: list[JwtKey] = []
        self._withdrawn: set[str | None] = set()  # ids of keys that are no longer published
        self._fetched_at = -math.inf  # the start of the fetch that returned these
        self._fetching: asyncio.Task[None] | None = None
        self._ended_at = -math.inf  # the end of the last fetch
        self._has_failed = False  # the result of the last fetch
        self._verified: LRUCache[str, _ParsedToken] = LRUCache(4096)
        # Why no account could be created (app/oidc/accounts.py). Trying again at each request would take time of the
        # provider and of the database's writer from others: the limit of a network counts a refusal only afterward.
        self.refused: TTLCache[tuple[str, Profile], Exception] = TTLCache(4096, COOLDOWN)

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
        await self._http.aclose()

    # ---- Tokens ----

    def issued(self, token: str) -> bool:
        """Whether the token names this provider as its issuer. Nothing is verified yet."""
        return len(token) <= MAX_LENGTH and _issuer_of(token) == self.issuer

    async def verify(self, token: str, now: datetime) -> ProviderClaims:
        """The claims of an access token; else InvalidToken, or ProviderUnavailable if keys cannot be fetched."""
        header, claims, verified_by = self._verified.get(token) or self._parse(token)
        if not claims.access.is_current(now):
            raise InvalidToken
        keys = await self.keys_for(header)
        if verified_by not in keys:
            verified_by = found(next((key for key in keys if key.has_signed(token)), None), InvalidToken)
        self._verified[token] = header, claims, verified_by
        return claims

    def _parse(self, token: str) -> _ParsedToken:
        jwt = parse_jwt(token)
        return jwt.header, access_token_claims(jwt, self.issuer, self._settings), None

    # ---- Endpoints ----

    async def profile(self, token: str, claims: ProviderClaims) -> Profile:
        """The person's profile from the token, or from userinfo (OpenID Connect Core section 5.3) if it has none."""
        if claims.profile.email:
            return claims.profile
        userinfo = await self.request("userinfo_endpoint", {"Authorization": f"Bearer {token}"})
        return Profile.model_validate(userinfo) if userinfo.get("sub") == claims.subject else claims.profile

    async def request(self, name: str, headers: dict[str, str], form: dict[str, str] | None = None) -> dict[str, Any]:
        """The response of the endpoint `name`, empty if it refuses the request; else ProviderUnavailable."""
        url = await self.endpoint(name)
        try:
            return await self._read_json(url, headers, form)
        except Exception as error:  # whatever the provider does wrong
            status = getattr(getattr(error, "response", None), "status_code", 0)
            log.warning("the identity provider's %s failed: %s", name, status or type(error).__name__)
            if status in {400, 401, 403}:
                return {}
            raise ProviderUnavailable(retry_after=COOLDOWN) from None

    async def _read_json(self, url: str, headers: dict[str, str], form: dict[str, str] | None = None) -> dict[str, Any]:
        """The JSON object that `url` returns to a GET, or to a POST of `form`; an exception for anything else."""
        with anyio.fail_after(TIMEOUT):  # in all: the client's own timeout is one for each part
            response = await self._http.request("POST" if form else "GET", url, headers=headers, data=form)
        response.raise_for_status()  # redirects are not followed either
        if isinstance(value := parse(response.content), dict):
            return value
        raise ValueError("its response is not a JSON object")

    # ---- Metadata and public keys: OpenID Connect Discovery 1.0, RFC 7517 ----

    async def metadata(self) -> dict[str, Any]:
        """The provider's metadata (Discovery section 3), or ProviderUnavailable if it has never been read."""
        await self._refresh()
        return found(self._metadata, ProviderUnavailable(retry_after=COOLDOWN))

    async def endpoint(self, name: str) -> str:
        """The URL of one of the provider's endpoints, such as `token_endpoint`."""
        return str(found((await self.metadata()).get(name), ProviderUnavailable(retry_after=COOLDOWN)))

    async def keys_for(self, header: dict[str, Any]) -> list[JwtKey]:
        """The keys that a JWT's header names, at least one.

        Raises InvalidToken if the provider has no such key, and ProviderUnavailable if it may have one: an
        unknown key may be new, unless it was withdrawn or a fetch that began after the token arrived lacks it.
        """
        arrived_at = monotonic()
        await self._refresh()
        if keys := select_keys(self._keys, header):
            return keys
        await asyncio.shield(self._fetch())
        if keys := select_keys(self._keys, header):
            return keys
        if self._keys and (self._fetched_at >= arrived_at or header.get("kid") in self._withdrawn):
            raise InvalidToken
        raise ProviderUnavailable(retry_after=COOLDOWN)

    async def _refresh(self) -> None:
        """Fetch again after MAX_AGE. Once a fetch has failed, requests go on with the known keys and do not wait."""
        if monotonic() - self._fetched_at > MAX_AGE:
            fetching = self._fetch()
            if not (self._has_failed and self._keys):
                await asyncio.shield(fetching)

    def _fetch(self) -> asyncio.Task[None]:
        """The fetch that is in progress or ended less than COOLDOWN ago, otherwise a new one."""
        if self._fetching is None or (self._fetching.done() and monotonic() - self._ended_at >= COOLDOWN):
            self._fetching = asyncio.create_task(self._load())
        return self._fetching

    async def _load(self) -> None:
        """Replace metadata and keys by what the provider publishes now, even if no key is left."""
        began_at = monotonic()
        try:
            metadata, keys = await self._published()
        except Exception as error:  # whatever the provider does wrong
            log.warning("the keys of the identity provider cannot be fetched: %s: %s", type(error).__name__, error)
            self._has_failed = True
        else:
            self._withdrawn = {key.id for key in self._keys}.union(self._withdrawn).difference(key.id for key in keys)
            self._metadata, self._keys = metadata, keys
            self._fetched_at, self._has_failed = began_at, False
            if not keys:
                log.warning("the identity provider publishes no key that is accepted here")
        finally:
            self._ended_at = monotonic()

    async def _published(self) -> tuple[dict[str, Any], list[JwtKey]]:
        metadata = await self._read_json(f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration", {})
        if metadata["issuer"] != self.issuer:
            raise ValueError("its metadata names another issuer than OIDC_ISSUER")
        return metadata, parse_jwks(await self._read_json(metadata["jwks_uri"], {}))


@lru_cache(maxsize=2048)  # every bearer token is parsed for it, our own included
def _issuer_of(token: str) -> object:
    try:
        return parse_jwt(token).payload.get("iss")
    except InvalidToken:
        return None

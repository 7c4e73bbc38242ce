"""The external identity provider as Muster uses it: verifying its access tokens, and requests to its endpoints.

No database session is open while Muster waits for the provider, whose responses are cached.
"""

import logging
from datetime import datetime
from functools import lru_cache
from typing import Any

import anyio
from cachetools import LRUCache, TTLCache

from app.core.errors import InvalidToken, ProviderUnavailable
from app.core.settings import Settings
from app.oauth2.access_tokens import is_current
from app.oidc.discovery import COOLDOWN, TIMEOUT, Discovery, request_json
from app.oidc.keys import VerifyingKey
from app.oidc.tokens import MAX_LENGTH, Profile, ProviderClaims, access_token_claims, parse_jwt, profile_of

log = logging.getLogger("muster.oidc")

_ParsedToken = tuple[dict[str, Any], ProviderClaims, VerifyingKey | None]  # its header, claims, and who signed it


class Provider:
    """The identity provider whose issuer is OIDC_ISSUER. For use on the event loop only."""

    def __init__(self, issuer: str, settings: Settings) -> None:
        import httpx  # noqa: PLC0415  # 4 MB that a service without a provider need not hold

        self.issuer = issuer
        self._settings = settings
        self._http = httpx.AsyncClient(
            timeout=TIMEOUT, headers={"Accept": "application/json", "Accept-Encoding": "identity"}
        )
        self.discovery = Discovery(issuer, self._http)
        self._verified: LRUCache[str, _ParsedToken] = LRUCache(4096)
        # Why no account could be created (app/oidc/accounts.py). To try again at each request would cost others the
        # provider's time and the writer's: the limit of a network counts a refusal only after that.
        self.refused: TTLCache[tuple[str, Profile], Exception] = TTLCache(4096, COOLDOWN)

    async def close(self) -> None:
        self.discovery.close()
        await self._http.aclose()

    # ---- Tokens ----

    def issued(self, token: str) -> bool:
        """Whether the token names this provider as its issuer. Nothing is verified yet."""
        return len(token) <= MAX_LENGTH and _issuer_of(token) == self.issuer

    async def verify(self, token: str, now: datetime) -> ProviderClaims:
        """The claims of an access token; else InvalidToken, or ProviderUnavailable if keys cannot be fetched."""
        header, claims, verified_by = self._verified.get(token) or self._parse(token)
        if not is_current(claims.access, now):
            raise InvalidToken
        keys = await self.discovery.keys_for(header)
        if verified_by not in keys:
            verified_by = next((key for key in keys if key.has_signed(token)), None)
        if verified_by is None:
            raise InvalidToken
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
        userinfo = await self.request("userinfo_endpoint", {"Authorization": f"Bearer {token}"}) or {}
        return profile_of(userinfo) if userinfo.get("sub") == claims.subject else claims.profile

    async def request(
        self, endpoint: str, headers: dict[str, str], form: dict[str, str] | None = None
    ) -> dict[str, Any] | None:
        """The response of an endpoint, None if it refuses the request; ProviderUnavailable for anything else."""
        url = await self.discovery.endpoint(endpoint)
        try:
            with anyio.fail_after(TIMEOUT):
                return await request_json(self._http, url, headers, form)
        except Exception as error:  # whatever the provider does wrong
            status = getattr(getattr(error, "response", None), "status_code", 0)
            log.warning("the identity provider's %s failed: %s", endpoint, status or type(error).__name__)
            if status in {400, 401, 403}:
                return None
            raise ProviderUnavailable(retry_after=COOLDOWN) from None


@lru_cache(maxsize=2048)  # every bearer token is parsed for it, our own included
def _issuer_of(token: str) -> object:
    try:
        return parse_jwt(token).payload.get("iss")
    except InvalidToken:
        return None

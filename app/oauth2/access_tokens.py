"""Access tokens as signed JWTs (RFC 9068, RFC 8725)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from app.core.crypto import HS256, TokenSigner, ValueSigner, derive_keys
from app.core.errors import InvalidToken, found
from app.models.user import LINK_KINDS
from app.oauth2.jwts import hmac_key, parse_jwt, rsa_key

AUDIENCE = "muster"
SKEW = timedelta(seconds=60)
ACCESS_TOKEN_TYPES = ("at+jwt", "application/at+jwt")  # RFC 9068 section 4
# RFC 7519 section 2, up to the last second of the year 9999, which Python can represent.
NumericDate = Annotated[int, Field(ge=0, le=253_402_300_799)]


class AccessClaims(BaseModel, frozen=True, strict=True, validate_by_name=True, serialize_by_alias=True):
    """The claims of an access token (RFC 9068 section 2.2; `sid` and `gen` are ours). Times are whole seconds, UTC."""

    subject: Annotated[UUID, Field(alias="sub", strict=False)]
    session_id: Annotated[UUID, Field(alias="sid", strict=False)]
    generation: Annotated[int, Field(alias="gen")]
    client_id: str
    scope: str
    auth_time: NumericDate
    issued_at: Annotated[NumericDate, Field(alias="iat")]
    expires_at: Annotated[NumericDate, Field(alias="exp")]
    not_before: Annotated[NumericDate, Field(alias="nbf")] = 0
    token_id: Annotated[str, Field(alias="jti")]
    # Minted for a browser's cookie, which may be renewed. A bearer token never is.
    in_cookie: Annotated[bool, Field(alias="cookie")] = False

    @classmethod
    def parse(cls, payload: dict[str, Any]) -> Self:
        """The claims in a payload, or InvalidToken."""
        try:
            return cls.model_validate(payload)
        except ValidationError as error:
            raise InvalidToken from error

    def is_current(self, now: datetime) -> bool:
        """Whether it is neither expired nor early (RFC 7519 sections 4.1.4 to 4.1.6), allowing for clock skew."""
        moment, skew = now.timestamp(), SKEW.total_seconds()
        return max(self.not_before, self.issued_at) - skew <= moment < self.expires_at + skew


class AccessTokenSigner:
    """Mints and verifies access tokens: the JWT profile of RFC 9068, verified by the rules of RFC 8725.

    With key files, tokens are signed with RS256 so that other services can verify them; tokens signed with SECRET_KEYS
    stay valid. A cookie's token is for this service alone and lives long: it is always HS256, which no other service
    accepts.
    """

    def __init__(self, secret_keys: Sequence[str], issuer: str, key_files: Sequence[Path] = ()) -> None:
        own = [hmac_key(key) for key in derive_keys(secret_keys, "access")]
        keys = [key for file in (*key_files, HS256) for key in (own if file == HS256 else [rsa_key(file)])]
        self._keys = list({key.id: key for key in keys}.values())  # without duplicates
        self._own = own[0]
        self.public_jwks = [key.public for key in self._keys if key.public]
        self.issuer = issuer
        # Verifying a signature costs more than everything else here, and phones repeat a token for ten minutes.
        self._verified = lru_cache(maxsize=4096)(self._verify)

    def mint(self, claims: AccessClaims) -> str:
        key = self._own if claims.in_cookie else self._keys[0]
        return key.sign(self.payload(claims), "at+jwt")

    def payload(self, claims: AccessClaims) -> dict[str, Any]:
        return {"iss": self.issuer, "aud": AUDIENCE, **claims.model_dump(mode="json", exclude_defaults=True)}

    def verify(self, token: str, now: datetime | None) -> AccessClaims:
        """The claims, or InvalidToken. `now=None` skips the expiry check: revocation accepts expired tokens."""
        claims = self._verified(token)
        if now is not None and not claims.is_current(now):
            raise InvalidToken
        return claims

    def _verify(self, token: str) -> AccessClaims:
        header, payload = parse_jwt(token)
        key = found(next((key for key in self._keys if key.id == header.get("kid")), None), InvalidToken)
        if header.get("alg") != key.algorithm or header.get("typ") not in ACCESS_TOKEN_TYPES or "crit" in header:
            raise InvalidToken
        if not key.has_signed(token) or payload.get("iss") != self.issuer or payload.get("aud") != AUDIENCE:
            raise InvalidToken
        if "cookie" in payload and key.algorithm != "HS256":
            raise InvalidToken  # a stolen key file must not mint cookies, which could then be renewed without it
        return AccessClaims.parse(payload)


class Signers:
    """Every signer of a running application."""

    def __init__(self, secret_keys: Sequence[str], issuer: str, key_files: Sequence[Path] = ()) -> None:
        self.access = AccessTokenSigner(secret_keys, issuer, key_files)
        self.refresh = TokenSigner(secret_keys, "refresh")
        self.code = TokenSigner(secret_keys, "code")
        self.links = {kind: TokenSigner(secret_keys, kind.replace("_", "-")) for kind in LINK_KINDS}
        self.cursor = ValueSigner(secret_keys, "cursor")  # positions in lists
        self.sign_in = ValueSigner(secret_keys, "sign-in")  # one at the identity provider, in progress in a browser

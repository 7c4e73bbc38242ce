"""The claims of the identity provider's JWTs, validated as RFC 8725 advises."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from app.core.crypto import sha256_base64url
from app.core.errors import InvalidToken
from app.core.scopes import USER, in_order
from app.core.settings import Settings
from app.models.types import Email, Name
from app.oauth2.access_tokens import ACCESS_TOKEN_TYPES, AccessClaims
from app.oauth2.jwts import Jwt

# Claims of ID tokens (OpenID Connect Core sections 2 and 3) and logout tokens.
_NEVER_IN_ACCESS_TOKENS = {"nonce", "at_hash", "c_hash", "s_hash", "events"}
# Placeholders for claims that only our own access tokens have. Nothing reads them: the database has session and user.
_PLACEHOLDERS = {"sub": UUID(int=0), "sid": UUID(int=0), "gen": 0, "client_id": "", "jti": ""}


def _or_none(value: object, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


class Profile(BaseModel, frozen=True):
    """The profile claims of a person (OpenID Connect Core section 5.1), without an address or name that is not valid
    here."""

    email: Annotated[Email | None, WrapValidator(_or_none)] = None
    is_verified: Annotated[bool, Field(alias="email_verified"), BeforeValidator(lambda value: value is True)] = False
    name: Annotated[Name | None, WrapValidator(_or_none)] = None


@dataclass(frozen=True, slots=True)
class ProviderClaims:
    """The claims of a token of the provider.

    `role` is the person's role here by OIDC_ROLE_MAP; None if that is not set, or if an ID token names no realm roles.
    `access` holds the others in the form of our own access tokens. Its auth_time is 0 if the provider does not say when
    the person signed in.
    """

    issuer: str
    subject: str
    role: str | None
    profile: Profile
    access: AccessClaims


def access_token_claims(jwt: Jwt, issuer: str, settings: Settings) -> ProviderClaims:
    """The claims of an access token for this service (RFC 9068 section 4, or as the settings say); else
    InvalidToken. The signature is not verified here."""
    payload, clients = jwt.payload, settings.oidc_client_id
    audiences = _audiences(payload, settings.oidc_audience_claim)
    if not _is_bearer_token(jwt, settings.oidc_token_mark) or settings.oidc_audience not in audiences:
        raise InvalidToken
    # The claim that names the client: azp at most providers, client_id in RFC 9068, cid at Okta.
    client = next((payload[name] for name in ("azp", "client_id", "cid") if name in payload), None)
    if not isinstance(client, str) or (clients and client not in clients):
        raise InvalidToken
    # The scopes, separated by spaces (RFC 8693 section 4.2), in an array, or as the keys of an object.
    names = payload.get(settings.oidc_scope_claim, "")
    names = names.split() if isinstance(names, str) else names
    if not isinstance(names, list | dict) or not all(isinstance(name, str) for name in names):
        raise InvalidToken
    scopes = {name.removeprefix(settings.oidc_scope_prefix) for name in names}
    return _claims(payload, issuer, scopes, _role(payload, settings.oidc_role_map))


def id_token_claims(jwt: Jwt, issuer: str, settings: Settings, *, nonce: str, access_token: str) -> ProviderClaims:
    """The claims of an ID token for our pages (OpenID Connect Core section 3.1.3.7); else InvalidToken.
    The signature is not verified here."""
    payload, audiences, client = jwt.payload, _audiences(jwt.payload), settings.oidc_client_id[0]
    if client not in audiences or payload.get("azp", client if len(audiences) == 1 else None) != client:
        raise InvalidToken
    at_hash = sha256_base64url(access_token, 16)  # section 3.1.3.6: the left half, for RS256 and ES256 alike
    if payload.get("nonce") != nonce or payload.get("at_hash", at_hash) != at_hash:
        raise InvalidToken
    role = _role(payload, settings.oidc_role_map) if "realm_access" in payload else None
    return _claims(payload, issuer, set(), role)


def _claims(payload: dict[str, Any], issuer: str, scopes: set[str], role: str | None) -> ProviderClaims:
    subject = payload.get("sub")  # OpenID Connect Core section 2: at most 255 ASCII characters
    if payload.get("iss") != issuer or not isinstance(subject, str) or not re.fullmatch(r"[ -~]{1,255}", subject):
        raise InvalidToken
    times: dict[str, Any] = {name: payload[name] for name in ("exp", "iat", "nbf", "auth_time") if name in payload}
    access = AccessClaims.parse({"auth_time": 0, **times, **_PLACEHOLDERS, "scope": " ".join(in_order(scopes))})
    return ProviderClaims(issuer, subject, role, Profile.model_validate(payload), access)


def _is_bearer_token(jwt: Jwt, mark: str | None) -> bool:
    """Whether this is an access token, by the header (RFC 9068) or the claim `mark`, by default Keycloak's `typ`.

    ID tokens and refresh tokens are not. A token bound to a key of its client (RFC 7800) is not a bearer token either:
    it would have to come with a proof of that key.
    """
    header, payload = jwt.header.get("typ", "JWT"), jwt.payload
    name, _, value = (mark or "typ=Bearer").partition("=")
    is_marked = name in payload and (payload[name] == value or not value)
    may_be_marked = mark is None or _NEVER_IN_ACCESS_TOKENS.isdisjoint(payload)
    is_access_token = header in ACCESS_TOKEN_TYPES or (header == "JWT" and is_marked and may_be_marked)
    return is_access_token and payload.get("typ") in (None, "Bearer") and "cnf" not in payload


def _audiences(payload: dict[str, Any], claim: str = "aud") -> list[Any]:
    audience = payload.get(claim)
    return audience if isinstance(audience, list) else [audience]


def _role(payload: dict[str, Any], role_map: Sequence[tuple[str, str]]) -> str | None:
    """The role that the map gives to Keycloak's realm roles, by its first entry that fits; None without a map."""
    if not role_map:
        return None
    match payload.get("realm_access"):
        case {"roles": list(realm_roles)}:
            return next((role for realm_role, role in role_map if realm_role in realm_roles), USER)
    return USER

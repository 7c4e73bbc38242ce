"""What other services need to verify our tokens themselves: the metadata (RFC 8414) and the public keys (RFC 7517)."""

from fastapi import Response
from sqlmodel import SQLModel

from app.core.crypto import KEYS_MAX_AGE
from app.core.scopes import SCOPES
from app.dependencies import ServicesDep
from app.http.routing import Router

CACHED = {"Cache-Control": f"public, max-age={KEYS_MAX_AGE}"}

router = Router("/.well-known", tags=["services"])


class Jwk(SQLModel):
    """One public key, for RS256 signatures alone. kid is its thumbprint (RFC 7638)."""

    kty: str
    use: str
    alg: str
    kid: str
    n: str
    e: str


class Jwks(SQLModel):
    """The public key of each of JWT_PRIVATE_KEY_FILES, in their order."""

    keys: list[Jwk]


class Metadata(SQLModel):
    """RFC 8414 section 2. The issuer is PUBLIC_URL, as it stands in the tokens."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    service_documentation: str
    scopes_supported: list[str] = list(SCOPES)
    response_types_supported: list[str] = []
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str] = ["none"]
    revocation_endpoint_auth_methods_supported: list[str] = ["none"]
    introspection_endpoint_auth_methods_supported: list[str] = ["Bearer"]


@router.get("/jwks.json")
async def read_jwks(response: Response, services: ServicesDep) -> Jwks:
    """The public keys of our access tokens (RFC 7517).

    Look a token's `kid` up here, and read this again when it is missing. Empty without JWT_PRIVATE_KEY_FILES.
    """
    response.headers.update(CACHED)
    return Jwks(keys=[Jwk(**key) for key in services.signers.access.public_jwks])


@router.get("/oauth-authorization-server")
async def read_metadata(response: Response, services: ServicesDep) -> Metadata:
    """Where the endpoints are, and what they take (RFC 8414): an OAuth client library configures itself by this."""
    response.headers.update(CACHED)
    issuer = services.settings.public_url
    grants = ["password", "refresh_token"] if services.settings.local_accounts == "on" else []
    return Metadata(
        issuer=issuer,
        token_endpoint=f"{issuer}/api/auth/token",
        revocation_endpoint=f"{issuer}/api/auth/revoke",
        introspection_endpoint=f"{issuer}/api/auth/introspect",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        service_documentation=f"{issuer}/api/docs",
        grant_types_supported=grants,
    )

"""Server metadata (RFC 8414) and public keys (RFC 7517), with which other services verify our tokens."""

from typing import Any

from fastapi import Response
from pydantic import MISSING
from sqlmodel import Field, SQLModel

from app.core.crypto import JWKS_MAX_AGE
from app.core.scopes import SCOPES
from app.dependencies import ServicesDep
from app.http.routing import Router

CACHED = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE}"}

router = Router("/.well-known", tags=["services"])


class Jwk(SQLModel):
    """A public key for RS256 signatures. `kid` is its thumbprint (RFC 7638)."""

    kty: str = Field(description="The key type.", schema_extra={"examples": ["RSA"]})
    use: str = Field(description="For signatures.", schema_extra={"examples": ["sig"]})
    alg: str = Field(description="The algorithm.", schema_extra={"examples": ["RS256"]})
    kid: str = Field(
        description="The id that a token's header names.",
        schema_extra={"examples": ["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"]},
    )
    n: str = Field(
        description="The modulus.",
        schema_extra={"examples": ["0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86z"]},
    )
    e: str = Field(description="The exponent.", schema_extra={"examples": ["AQAB"]})


class Jwks(SQLModel):
    """The public keys of JWT_PRIVATE_KEY_FILES, in that order."""

    keys: list[Jwk] = Field(description="The newest first.")


def _url(description: str, path: str, *, default: Any = ...) -> Any:
    examples = [f"https://muster.example.com{path}"]
    return Field(default=default, description=description, schema_extra={"examples": examples})


class Metadata(SQLModel):
    """RFC 8414 section 2. The issuer is PUBLIC_URL, as in the tokens."""

    issuer: str = _url("The `iss` of the tokens.", "")
    authorization_endpoint: str | MISSING = _url("Where people sign in.", "/authorize", default=MISSING)
    token_endpoint: str = _url("Where to get tokens.", "/api/auth/token")
    revocation_endpoint: str = _url("Where to sign out.", "/api/auth/revoke")
    introspection_endpoint: str = _url("Where to ask about a token.", "/api/auth/introspect")
    jwks_uri: str = _url("Where the public keys are.", "/.well-known/jwks.json")
    service_documentation: str = _url("For developers.", "/api/docs")
    scopes_supported: list[str] = Field(default=list(SCOPES), description="The scopes that a token can have.")
    response_types_supported: list[str] = Field(
        description="What the authorization endpoint returns.", schema_extra={"examples": [["code"]]}
    )
    grant_types_supported: list[str] = Field(
        description="How to get tokens.", schema_extra={"examples": [["authorization_code", "refresh_token"]]}
    )
    code_challenge_methods_supported: list[str] = Field(default=["S256"], description="PKCE (RFC 7636).")
    authorization_response_iss_parameter_supported: bool = Field(default=True, description="RFC 9207.")
    token_endpoint_auth_methods_supported: list[str] = Field(default=["none"], description="Clients are public.")
    revocation_endpoint_auth_methods_supported: list[str] = Field(default=["none"], description="Clients are public.")
    introspection_endpoint_auth_methods_supported: list[str] = Field(
        default=["Bearer"], description="A token with `tokens:introspect`."
    )
    subject_types_supported: list[str] = Field(default=["public"], description="For AppAuth, which requires it.")
    id_token_signing_alg_values_supported: list[str] = Field(default=[], description="None: there are no ID tokens.")


@router.get("/jwks.json")
async def read_jwks(response: Response, services: ServicesDep) -> Jwks:
    """The public keys of our access tokens (RFC 7517).

    Look up a token's `kid` here, and fetch the keys again when it is missing. Empty without JWT_PRIVATE_KEY_FILES.
    """
    response.headers.update(CACHED)
    return Jwks(keys=[Jwk(**key) for key in services.signers.access.public_jwks])


@router.get("/openid-configuration", include_in_schema=False)  # AppAuth looks here; RFC 8414 section 5 allows it
@router.get("/oauth-authorization-server")
async def read_metadata(response: Response, services: ServicesDep) -> Metadata:
    """The endpoints and what they support (RFC 8414): OAuth client libraries configure themselves from this."""
    response.headers.update(CACHED)
    issuer = services.settings.public_url
    grants = services.settings.grant_types
    return Metadata(
        issuer=issuer,
        authorization_endpoint=f"{issuer}/authorize" if grants else MISSING,
        response_types_supported=["code"] if grants else [],
        token_endpoint=f"{issuer}/api/auth/token",
        revocation_endpoint=f"{issuer}/api/auth/revoke",
        introspection_endpoint=f"{issuer}/api/auth/introspect",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        service_documentation=f"{issuer}/api/docs",
        grant_types_supported=grants,
    )

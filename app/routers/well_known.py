"""Server metadata (RFC 8414) and public keys (RFC 7517), with which other services verify our tokens.

OAuth libraries read them, and the RFCs describe them, so they are not in the OpenAPI document.
"""

from fastapi.responses import JSONResponse

from app.core.crypto import JWKS_MAX_AGE
from app.core.scopes import SCOPES
from app.dependencies import ServicesDep
from app.http.routing import Router

CACHED = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE}"}

router = Router(prefix="/.well-known")


@router.get("/jwks.json", include_in_schema=False)
async def read_jwks(services: ServicesDep) -> JSONResponse:
    """The public keys of our access tokens, newest first: none without JWT_PRIVATE_KEY_FILES."""
    return JSONResponse({"keys": services.signers.access.public_jwks}, headers=CACHED)


@router.get("/openid-configuration", include_in_schema=False)  # AppAuth looks here; RFC 8414 section 5 allows it
@router.get("/oauth-authorization-server", include_in_schema=False)
async def read_metadata(services: ServicesDep) -> JSONResponse:
    """The endpoints and what they support (RFC 8414 section 2): OAuth libraries configure themselves from this."""
    issuer, grants = services.settings.public_url, services.settings.grant_types
    metadata = {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/api/auth/token",
        "revocation_endpoint": f"{issuer}/api/auth/revoke",
        "introspection_endpoint": f"{issuer}/api/auth/introspect",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "service_documentation": f"{issuer}/api/docs",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"] if grants else [],
        "grant_types_supported": grants,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,  # RFC 9207
        "token_endpoint_auth_methods_supported": ["none"],  # all clients are public
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
        # For AppAuth, which requires both. There are no ID tokens.
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [],
    }
    if grants:
        metadata["authorization_endpoint"] = f"{issuer}/authorize"
    return JSONResponse(metadata, headers=CACHED)

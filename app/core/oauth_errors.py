"""The errors of the OAuth endpoints (RFC 6749 section 5.2), whose JSON is that of OAuth and not problem+json."""

from collections.abc import Mapping
from typing import Any

from app.core.errors import AppError, InsufficientScope


class OAuthError(AppError, status=400, title="The token request failed"):
    """The token request failed."""


class InvalidRequest(OAuthError):
    """The request lacks a parameter, repeats one, or is malformed."""


class InvalidGrant(OAuthError):
    """The credentials, the code or the refresh token are not valid."""


class InvalidScope(OAuthError):
    """The scope is unknown, malformed, or exceeds what was granted."""


class UnsupportedGrantType(OAuthError):
    """This grant type is not supported. The server's metadata lists those that are."""


# Errors of the authorization endpoint, reported by redirect (RFC 6749 section 4.1.2.1).
class UnsupportedResponseType(OAuthError):
    """The only response type is code."""


class AccessDenied(OAuthError):
    """The person did not consent."""


class InvalidClient(OAuthError, status=401):
    """The client is unknown. Send the request without client authentication."""

    headers: Mapping[str, str] = {"WWW-Authenticate": 'Basic realm="muster"'}


_WAIT = "temporarily_unavailable"  # still signed in: the app tries again or, after a 426, is updated
# 401: no access token, or one that is not valid (RFC 6750 section 3.1).
_OAUTH_CODES = {401: "invalid_token", 408: _WAIT, 426: _WAIT, 429: _WAIT, 500: "server_error", 503: _WAIT}


def oauth_error(error: AppError) -> dict[str, Any]:
    """The response body of any error at an OAuth endpoint. Other errors get the closest code of RFC 6749."""
    code = _OAUTH_CODES.get(error.status, "invalid_request")
    if isinstance(error, OAuthError | InsufficientScope):
        code = error.type.replace("-", "_")
    return {"error": code, "error_description": error.detail, "detail": error.detail, **error.members}

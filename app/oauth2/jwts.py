"""JSON Web Tokens (RFC 7515, RFC 7519), ours and the identity provider's: strict parsing, and keys that verify them."""

from dataclasses import dataclass, field
from typing import Any

from app.core.crypto import from_base64url
from app.core.errors import InvalidToken
from app.core.strict_json import parse

MAX_LENGTH = 8192  # characters: Keycloak puts every role of a person into a token


@dataclass(frozen=True, slots=True)
class Jwt:
    """The header and payload of a JWT whose signature is not verified yet."""

    header: dict[str, Any]
    payload: dict[str, Any]


def parse_jwt(token: str) -> Jwt:
    """Parse strictly, so that no other parser reads the token differently; else InvalidToken."""
    parts = token.split(".")
    try:
        if len(token) > MAX_LENGTH or len(parts) != 3:
            raise InvalidToken
        head, body, _ = map(from_base64url, parts)
        header, payload = parse(head), parse(body)
    except ValueError as error:
        raise InvalidToken from error
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise InvalidToken
    return Jwt(header, payload)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key bound to one algorithm, parsed once by python-jose. `public` is its JWK; empty for an HMAC key."""

    id: str | None
    algorithm: str
    public: dict[str, str]
    parsed: Any = field(compare=False)

    def has_signed(self, token: str) -> bool:
        """Whether it has signed a token that `parse_jwt` accepts. Compare the algorithm in its header first."""
        signed, _, signature = token.rpartition(".")
        return bool(self.parsed.verify(signed.encode(), from_base64url(signature)))

"""Parsing OAuth requests: forms (RFC 6749 appendices A and B) and scopes (section 3.3)."""

import re
from urllib.parse import parse_qsl

from app.core.errors import InvalidRequest, InvalidScope
from app.core.scopes import SCOPES, in_order

# RFC 6749 appendix A: the parameters of token, revocation and introspection requests.
PARAMETERS = frozenset(
    {"grant_type", "username", "password", "scope", "client_id", "client_secret", "refresh_token", "device"}
    | {"token", "token_type_hint"}
)
_MAX_PARAMETERS = 50
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*", re.ASCII)


def parse_form(body: bytes) -> dict[str, str]:
    """Parse a form by RFC 6749 appendix B: UTF-8, no parameter twice, empty ones dropped; else InvalidRequest."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise InvalidRequest("The body is not a form in UTF-8.") from None
    names = [name for name, _ in pairs if name in PARAMETERS]
    if len(names) != len(set(names)):
        raise InvalidRequest("A parameter is repeated.")
    if any("\0" in name + value for name, value in pairs):
        raise InvalidRequest("A parameter holds a NUL character.")
    return {name: value for name, value in pairs if name in PARAMETERS and value}


def parse_scope(scope: str) -> frozenset[str]:
    """The known scopes of a scope parameter (RFC 6749 section 3.3), or InvalidScope."""
    names = frozenset(scope.split(" ")) if _SCOPE.fullmatch(scope) else frozenset({scope})
    if not names <= SCOPES.keys():
        raise InvalidScope
    return names


def scope_at_login(requested: str | None, role_scopes: list[str]) -> str | None:
    """The scope that a new session stores: None for all of the role's, else the requested ones that the role has."""
    if requested is None:
        return None
    granted = parse_scope(requested).intersection(role_scopes)
    if not granted:
        raise InvalidScope
    return " ".join(in_order(granted))

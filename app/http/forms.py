"""What OpenAPI says of the forms of the OAuth endpoints, which are read by hand (app/oauth2/requests.py)."""

from typing import Any


def _form(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": schema}},
        }
    }


_TEXT = {"type": "string"}
_DEVICE = _TEXT | {"description": "Its name in the list of sessions.", "example": "Ada's phone"}
TOKEN_FORM = _form(
    ["grant_type"],
    grant_type={"type": "string", "enum": ["password", "refresh_token"]},
    username=_TEXT | {"description": "Your e-mail address (password grant).", "example": "ada@example.com"},
    password={"type": "string", "format": "password", "description": "Password grant."},
    refresh_token={"type": "string", "description": "Refresh grant.", "example": ""},
    scope={"type": "string", "description": "Separated by spaces. Left out: all of yours.", "example": ""},
    client_id={"type": "string", "maxLength": 100, "description": "A label kept with the session.", "example": "app"},
    device=_DEVICE,
)
COOKIE_FORM = _form(
    ["username", "password"],
    username=_TEXT | {"description": "Your e-mail address.", "example": "ada@example.com"},
    password={"type": "string", "format": "password"},
    device=_DEVICE,
)
REVOCATION_FORM = _form(
    ["token"], token=_TEXT | {"minLength": 1}, token_type_hint=_TEXT | {"examples": ["refresh_token", "access_token"]}
)

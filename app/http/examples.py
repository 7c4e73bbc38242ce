"""What OpenAPI says of a parameter, a field or a header wherever it occurs: in words where the name does not say it,
and by one example. A route that has its own words keeps them."""

from typing import Any

_ID = "The id of the row."
_TAG = '"01935b0e-7c1a-7000-8000-0123456789ab.12"'
_UUID = "01935b0e-7c1a-7000-8000-0123456789ab"
_ISSUER = "https://muster.example.com"

# By name: the description, unless the route has its own, and an example.
PARAMETERS: dict[str, tuple[str, Any]] = {
    "after": ("", "dGhlIGN1cnNvcg"),
    "assignee": ("", _UUID),
    "author": ("", _UUID),
    "before": ("Only what has a smaller number: the last rows before it.", 12),
    "began": ("", 12),
    "figi": ("Only operations of this instrument.", "BBG000B9XRY4"),
    "from": ("", "2023-10-01"),
    "format": ("The table or the page; left out, a browser gets the page and all others the table.", "html"),
    "full": ("", "true"),
    "hero_id": (_ID, 1),
    "idempotency-key": ("", "0b0d7f5e-3c1f-4a52-9f0e-1a2b3c4d5e6f"),
    "if-match": ("", _TAG),
    "if-none-match": ("", _TAG),
    "instrument_type": ("Only operations of this type of instrument, in any case.", "btc"),
    "job_id": ("The id of the job.", _UUID),
    "last-event-id": ("The number of the last message that you saw; it wins over `after`.", 12),
    "limit": ("How many rows at most.", 50),
    "name": ("The role's name.", "user"),
    "open": ("", "true"),
    "operation_id": (_ID, 1),
    "room": ("A slug; a room is there once something is written in it.", "lobby"),
    "session_id": ("The id of the session, from the list of sessions.", _UUID),
    "since": ("The revision that your copy goes up to; 0: it is empty.", 12),
    "state": ("Only jobs in this state.", "failed"),
    "task_id": (_ID, 1),
    "team_id": (_ID, 1),
    "to": ("", "2023-11-01T00:00:00Z"),
    "type": ("Only operations of this type, in any case.", "sell"),
    "user_id": ("The id of the account.", _UUID),
    "wait": ("Seconds to wait for a message if there is none yet.", 25),
}

# By name; "Schema.name" where a name means several things.
FIELDS: dict[str, Any] = {
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9.e30.c2lnbmF0dXJl",
    "active": True,
    "age": 48,
    "alg": "RS256",
    "attempts": 1,
    "aud": "muster",
    "author": "Ada",
    "client_id": "app",
    "client_message_id": "0b0d7f5e-3c1f-4a52-9f0e-1a2b3c4d5e6f",
    "closed_at": "2026-11-24T12:00:00Z",
    "count": 3,
    "created": 3,
    "current_password": "violet-tandem-harbour",
    "device": "Ada's phone",
    "e": "AQAB",
    "error": "The attempt failed. The ticket 1f0c3ba5d27e names the log line.",
    "exp": 1795500600,
    "expires_in": 600,
    "grant_types_supported": ["password", "refresh_token"],
    "iat": 1795500000,
    "id": 7,
    "instrument_type": "btc",
    "introspection_endpoint": f"{_ISSUER}/api/auth/introspect",
    "introspection_endpoint_auth_methods_supported": ["Bearer"],
    "ip": "192.0.2.7",
    "iss": _ISSUER,
    "issuer": _ISSUER,
    "jti": "Zm9yIG9uZSB0b2tlbg",
    "jwks_uri": f"{_ISSUER}/.well-known/jwks.json",
    "kid": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    "kty": "RSA",
    "month": "2023-10",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSocBJECPebWKRXjBZCiFV4n",
    "name": "Ada",
    "nbf": 1795500000,
    "new_password": "copper-lantern-meadow",
    "next": 12,
    "number": 12,
    "progress": 0.5,
    "quantity": "10",
    "refresh_token": "AVwBk1sOfBpwAIAAASNFZ4mrAAAAAQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
    "response_types_supported": [],
    "result": f"/api/jobs/{_UUID}/result",
    "revision": 12,
    "revocation_endpoint": f"{_ISSUER}/api/auth/revoke",
    "revocation_endpoint_auth_methods_supported": ["none"],
    "role": "user",
    "room": "lobby",
    "RolePublic.name": "user",
    "scope": "me operations:read",
    "scopes": ["me", "operations:read"],
    "scopes_supported": ["me", "operations:read"],
    "service_documentation": f"{_ISSUER}/api/docs",
    "status": "ok",
    "text": "Hello",
    "title": "Water the plants",
    "token_endpoint": f"{_ISSUER}/api/auth/token",
    "token_endpoint_auth_methods_supported": ["none"],
    "token_type": "Bearer",
    "token": "AVwBk1sOfBpwAIAAASNFZ4mrAAAAAQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
    "type": "sell",
    "use": "sig",
    "user_agent": "Muster/1.0 (iPhone; iOS 20)",
}


def _header(description: str, example: Any) -> dict[str, Any]:
    kind = "integer" if isinstance(example, int) else "string"
    return {"description": description, "schema": {"type": kind}, "example": example}


HEADERS: dict[str, dict[str, Any]] = {
    "Allow": _header("The methods that this address takes.", "GET, POST"),
    "ETag": _header("What If-None-Match and If-Match compare.", _TAG),
    "Link": _header("The next page, if there is one (RFC 8288).", '</api/heroes?after=dGhlIGN1cnNvcg>; rel="next"'),
    "Location": _header("The address of what was made.", "/api/operations/7"),
    "RateLimit": _header("What is left of the limit, and the seconds until it is whole.", '"request";r=0;t=42'),
    "RateLimit-Policy": _header("The limit: so many in so many seconds.", '"request";q=300;w=60'),
    "Retry-After": _header("Seconds.", 42),
    "WWW-Authenticate": _header("The challenge (RFC 6750 section 3).", 'Bearer realm="muster", error="invalid_token"'),
}


def headers(*names: str) -> dict[str, dict[str, Any]]:
    """The `headers` of an answer."""
    return {name: HEADERS[name] for name in names}


def describe_parameter(parameter: dict[str, Any]) -> None:
    """The example goes into the words: as a field of its own Swagger UI would send it with every request."""
    words, usual = PARAMETERS[parameter["name"]]
    schema = parameter["schema"]
    if parameter["name"].startswith("if-"):
        schema = parameter["schema"] = {"type": "string", "title": schema["title"]}
    example = schema.get("anyOf", [schema])[0].setdefault("examples", [usual])[0]
    parameter["description"] = f"{parameter.get('description', words)} Example: `{example}`"


def describe_success(operation: dict[str, Any]) -> None:
    """Which headers an answer has follows from what the request can say."""
    asked = {parameter["name"] for parameter in operation.get("parameters", [])}
    for status, answer in operation["responses"].items():
        names = [
            *(["Link"] if status == "200" and "limit" in asked else []),
            *(["ETag"] if status in {"200", "304"} and asked & {"if-match", "if-none-match"} else []),
        ]
        if names:
            answer.setdefault("headers", {}).update(headers(*names))


def describe_fields(name: str, schema: dict[str, Any]) -> None:
    for field, described in schema.get("properties", {}).items():
        example = FIELDS.get(f"{name}.{field}", FIELDS.get(field))
        inner = described.get("anyOf", [described])[0]
        if example is not None and not {"examples", "enum", "$ref"} & inner.keys():
            inner["examples"] = [example]

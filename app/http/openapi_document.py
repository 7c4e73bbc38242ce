"""Completes the OpenAPI document with each route's errors and scope, and an example for every parameter; and serves
Swagger UI, which shows it."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic.json_schema import models_json_schema

from app.core import errors
from app.core.scopes import SCOPES
from app.core.settings import ROOT, get_settings
from app.http.error_handlers import OAUTH_PATHS
from app.http.middleware import ANY_VERSION_PATHS
from app.http.openapi import ANY, GENERAL, SHARED, TEXTS, headers, problems

# As strict as the pages' own policy, except for Swagger UI's icons, which are data: images.
DOCS_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}


def install_openapi(app: FastAPI) -> None:
    """Make `app.openapi()` return the complete document, and add Swagger UI."""
    build = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(build())
        return build()

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's documented way
    app.add_api_route("/", _home, include_in_schema=False)
    app.add_api_route("/api/docs", _docs, include_in_schema=False)


async def _home() -> RedirectResponse:
    return RedirectResponse("/api/docs")


async def _docs() -> HTMLResponse:
    """Swagger UI from local files, so that it works without Internet access."""
    return HTMLResponse((ROOT / "app" / "static" / "docs.html").read_text(), headers=DOCS_POLICY)


def _complete(schema: dict[str, Any]) -> None:
    schemas = schema["components"]["schemas"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete_operation(path, method, operation)
    _describe_api(schema)
    # A collection comes before its members, whichever route is tried first.
    schema["paths"] = dict(sorted(schema["paths"].items(), key=lambda item: item[0].count("/")))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    paths = str(schema["paths"])
    used = [model for model in SHARED if f"#/components/schemas/{model.__name__}'" in paths]
    _, shared = models_json_schema([(each, "validation") for each in used], ref_template="#/components/schemas/{model}")
    schemas |= shared["$defs"]
    simplify(schema)


def _describe_api(schema: dict[str, Any]) -> None:
    """Add what openapi.toml says about the API and its tags. A tag without a text there, such as that of a new
    resource, is described by the scope of the same name."""
    settings = get_settings()
    sign_in = TEXTS["sign-in"]["on" if settings.grant_types else "off"]
    schema["info"]["description"] = TEXTS["description"].format(sign_in=sign_in)
    # Swagger UI calls the first address, from which it got the document.
    addresses = {"/": "This address", settings.public_url: "The public address"}
    schema["servers"] = [{"url": url, "description": text} for url, text in addresses.items()]
    used = {tag for methods in schema["paths"].values() for each in methods.values() for tag in each.get("tags", ())}
    new = {tag: f"{SCOPES[tag]}." for tag in sorted(used - TEXTS["tags"].keys()) if tag in SCOPES}
    schema["tags"] = [{"name": tag, "description": text} for tag, text in (TEXTS["tags"] | new).items()]


def _complete_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    scopes = [scope for requirement in operation.get("security", []) for scope in requirement.get("muster", ())]
    words = operation.setdefault("description", operation["summary"])
    # Swagger UI shows the summary in its list: the docstring's first sentence, without Markdown.
    operation["summary"] = " ".join(words.split()).partition(". ")[0].removesuffix(".").replace("`", "")
    if scopes:
        needed = ", ".join(f"`{scope}` ({SCOPES[scope][0].lower()}{SCOPES[scope][1:]})" for scope in scopes)
        operation["description"] += f"\n\nScope: {needed}."
    for parameter in operation.get("parameters", []):
        _add_example(parameter)
    _add_headers(path, operation)
    _add_errors(path, method, operation, scopes)


# Examples by format or type, for parameters that have none of their own.
_EXAMPLES = {"integer": 1, "boolean": True, "date-time": "2026-11-24T12:00:00Z"}
_EXAMPLES |= {"uuid": "01935b0e-7c1a-7000-8000-0123456789ab"}


def _add_example(parameter: dict[str, Any]) -> None:
    """Put an example into the description. From a field of its own, Swagger UI would send it with every request."""
    schema = parameter["schema"]
    if _NULL in schema.get("anyOf", ()):
        schema["anyOf"].remove(_NULL)  # a query parameter or header is absent rather than null
    inner = schema.get("anyOf", [schema])[0]
    parameter.setdefault("description", inner.get("description", ""))
    by_type = _EXAMPLES.get(inner.get("format") or inner.get("type"), parameter["name"])
    examples = schema.get("examples") or inner.get("examples") or inner.get("enum") or [schema.get("default", by_type)]
    schema.setdefault("examples", examples[:1])
    shown = examples[0] if isinstance(examples[0], str) else json.dumps(examples[0])
    parameter["description"] = f"{parameter['description']} Example: `{shown}`".lstrip()


def _add_headers(path: str, operation: dict[str, Any]) -> None:
    """Declare the response headers that follow from the parameters."""
    sent = {parameter["name"]: parameter["schema"]["examples"][0] for parameter in operation.get("parameters", [])}
    for status, response in operation["responses"].items():
        declared = {}
        cursor = next((name for name in ("after", "since") if name in sent), None)
        if status == "200" and "limit" in sent and cursor:
            link = f'<{path.format_map(sent)}?{cursor}={sent[cursor]}>; rel="next"'
            declared["Link"] = TEXTS["headers"]["Link"] | {"example": link}
            if cursor == "after":
                declared["Next-Cursor"] = TEXTS["headers"]["Next-Cursor"] | {"example": str(sent[cursor])}
        if status in {"200", "304"} and sent.keys() & {"if-match", "if-none-match"}:
            declared |= headers("ETag")
        if declared:
            response.setdefault("headers", {}).update(declared)


def _add_errors(path: str, method: str, operation: dict[str, Any], scopes: list[str]) -> None:
    """Add the general errors and those of authentication. A status may have errors of the route's own as well."""
    oauth = path in OAUTH_PATHS
    kinds = list(ANY if oauth else GENERAL)
    if scopes:
        kinds += [errors.Unauthenticated, errors.InvalidToken, *map(errors.InsufficientScope, scopes)]
        kinds += [errors.ForeignOrigin] if method != "get" else []
        if get_settings().oidc_issuer:  # a person's first token creates the account, on whichever route that is
            kinds += [errors.EmailMissing, errors.EmailTaken, errors.ProviderUnavailable]
    own = operation["responses"]
    if "HTTPValidationError" in str(own.get("422")):
        del own["422"]  # FastAPI describes its own, which we do not return
    for status, general in problems(*kinds, oauth=oauth).items():
        response = own.setdefault(str(status), general)
        for media_type, content in general["content"].items():
            for example in content["examples"].values():
                example["x-general"] = True  # static/docs.js hides the errors that all routes share
            mine = response.setdefault("content", {}).setdefault(media_type, {"schema": content["schema"]})
            mine["examples"] = content["examples"] | mine.get("examples", {})
    if path.startswith(ANY_VERSION_PATHS):
        own.pop(str(errors.AppTooOld.status))


# ---- The schemas, as generators of typed clients read them best: docs/clients.md ----


_NULL = {"type": "null"}


def simplify(node: Any) -> None:
    """Simplify every schema in `node`: a nullable value gets two types, and an integer gets its size."""
    if isinstance(node, list):
        for inner in node:
            simplify(inner)
    if not isinstance(node, dict):
        return
    for name, inner in node.items():
        if name not in {"example", "examples"}:
            simplify(inner)
    match node.get("anyOf"):
        case [{"type": str(kind)} as only, *others] if others in ([], [_NULL]):
            del node["anyOf"]
            node |= only | node | {"type": [kind, "null"] if others else kind}
    for bound in ("minimum", "maximum"):
        if isinstance(value := node.get(bound), float) and value.is_integer():
            # As a float, 2^63 - 1 is 2^63, which is no integer of 64 bits.
            node[bound] = min(int(value), 2**63 - 1)
    if node.get("type") in ("integer", ["integer", "null"]):
        node.setdefault("format", "int32" if node.get("maximum", 2**31) < 2**31 else "int64")

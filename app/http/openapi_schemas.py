"""The schemas of the OpenAPI document as generators of typed clients read them best (docs/clients.md)."""

from typing import Any

_NULL = {"type": "null"}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def simplify(node: Any) -> None:
    """Simplify every schema in `node`: what is nullable has two types, and every integer its size."""
    if isinstance(node, dict):
        for name, inner in node.items():
            if name not in {"example", "examples"}:
                simplify(inner)
        _simplify(node)
    elif isinstance(node, list):
        for inner in node:
            simplify(inner)


def _simplify(schema: dict[str, Any]) -> None:
    match schema.get("anyOf"):
        case [{"type": str(kind)} as only, null] if null == _NULL:
            _replace_union(schema, only, [kind, "null"])
        case [{"type": str(kind)} as only]:
            _replace_union(schema, only, kind)
    for bound in _BOUNDS:
        if isinstance(value := schema.get(bound), float) and value.is_integer():
            # As a float, 2^63 - 1 is 2^63, which is no integer of 64 bits.
            schema[bound] = min(int(value), 2**63 - 1)
    if "integer" in (schema.get("type"), *_list(schema.get("type"))):
        schema.setdefault("format", "int32" if schema.get("maximum", 2**31) < 2**31 else "int64")


def _list(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else []


def _replace_union(schema: dict[str, Any], only: dict[str, Any], kind: str | list[str]) -> None:
    del schema["anyOf"]
    schema |= only | schema | {"type": kind}


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a query parameter or header, which is absent rather than null."""
    branches = [branch for branch in schema.get("anyOf", ()) if branch != _NULL]
    return schema | {"anyOf": branches} if branches else schema

"""The base of every model: constraint names, JSON schemas, ids, the current time, fields, indexes, request bodies."""

import os
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from pydantic import MISSING, BaseModel, ConfigDict
from sqlalchemy import ColumnElement
from sqlmodel import BigInteger, Field, Index, Integer, SQLModel, String, Table, col, text

from app.models.types import MAX_EMAIL

# Set before the first table is defined. A violated constraint is recognized by its name on both databases.
SQLModel.metadata.naming_convention = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
}


def _complete_schema(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Describe what clients may leave out, and what they always get.

    A response has every field, null or not, except those that are MISSING. In a request, a field that is null by
    default is optional: generated clients leave it out, although null is accepted too.
    """
    fields = {key: field for name, field in model.model_fields.items() for key in (name, field.serialization_alias)}
    required = [name for name in schema.pop("required", ()) if fields[name].default is not MISSING]
    if required:
        schema["required"] = required
    for name, field in fields.items() if model.model_config.get("extra") == "forbid" else ():
        described = schema["properties"].get(name, {})
        if field.default is None and "anyOf" in described:
            described["anyOf"].remove({"type": "null"})


SQLModel.model_config |= {"json_schema_serialization_defaults_required": True, "json_schema_extra": _complete_schema}


def utcnow() -> datetime:
    """The current time as an aware datetime in UTC."""
    return datetime.now(UTC)


def uuid7() -> UUID:
    """A version 7 UUID (RFC 9562 section 5.7). It sorts by its millisecond, so an index grows at its end."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10))
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def uuid7_at(moment: datetime) -> UUID:
    """A lower bound of the version 7 UUIDs that are made from this moment on."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def described(description: str, example: Any, **settings: Any) -> Any:
    """SQLModel's Field with an example for OpenAPI. Pydantic's Field has a parameter for it, SQLModel's does not."""
    return Field(description=description, schema_extra={"examples": [example]}, **settings)


# An example of a refresh token, and of the token in a mailed link.
OPAQUE_EXAMPLE = "AVwBk1sOfBpwAIAAASNFZ4mrAAAAAQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
MAX_ID = 2**63 - 1
MAX_PAGE = 200  # rows of a list
Id = Annotated[int, described("Its id.", 7)]
# 64 bits on both databases: SQLite generates ids only for a primary key that is declared as INTEGER.
BigId = BigInteger().with_variant(Integer(), "sqlite")
# Ordered by code point on both databases, whatever their locale, so that a list and its cursors agree everywhere.
SortedName = String(100).with_variant(String(100, collation="C"), "postgresql")
SortedAddress = String(MAX_EMAIL).with_variant(String(MAX_EMAIL, collation="C"), "postgresql")


def partial_index(condition: str, *columns: str) -> Index:
    """An index of the rows that meet the condition, on both databases."""
    return Index(None, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


# The options of every relationship: reading one that the query has not loaded is an error, never another query.
NEVER_LAZY = {"lazy": "raise"}


class Body(SQLModel):
    """A request body: unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid")  # type: ignore[assignment]  # SQLModel narrows ConfigDict


def equal(table: type[SQLModel], filters: SQLModel) -> list[ColumnElement[bool]]:
    """One equality condition for each filter that is set and has a column of the same name."""
    given = [(name, value) for name, value in filters if value is not None and name in table.model_fields]
    return [col(getattr(table, name)) == value for name, value in given]


def all_tables() -> list[Table]:
    """Every table, each after those that it refers to. Importing a module of this package registers its tables."""
    for module in Path(__file__).parent.glob("[!_]*.py"):
        import_module(f"app.models.{module.stem}")
    return SQLModel.metadata.sorted_tables

"""Tables and schemas, one file a family; here what they share: constraint names, ids, times and text."""

import os
import time
import unicodedata
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, ConfigDict, StringConstraints, WithJsonSchema
from sqlalchemy import BigInteger, Integer, String
from sqlmodel import SQLModel

# Before the first table: these names are what a violated constraint is known by on both databases.
SQLModel.metadata.naming_convention = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
}


def utcnow() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


def uuid7() -> UUID:
    """A version 7 UUID (RFC 9562 section 5.7): sorts by its millisecond, so an index grows at its end."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10))
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


MAX_EMAIL_LENGTH = 254  # RFC 5321 section 4.5.3.1.3


def email_address(value: str) -> str:
    """The address as it is stored and compared: valid by RFC 5321/6531, normalised, without case."""
    if len(value) > MAX_EMAIL_LENGTH:
        raise ValueError("this is not an e-mail address")  # before anything looks at every character of it
    try:
        # Reserved names such as example.test stay allowed: developers and tests live there.
        return validate_email(value.strip(), check_deliverability=False, test_environment=True).normalized.lower()
    except EmailNotValidError as error:
        raise ValueError("this is not an e-mail address") from error


def one_form(value: str, *, max_length: int = 100) -> str:
    """NFC. The length is judged once more: some characters become two or three, which the column has no room for."""
    value = unicodedata.normalize("NFC", value)
    if len(value) > max_length:
        raise ValueError("this is too long")
    return value


# No control characters: PostgreSQL cannot store NUL, and nobody wants the others in a name.
_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff"
PLAIN = rf"^[^{_CONTROLS}]*$"
# What OpenAPI says of text that is trimmed and must not be empty then.
WORDS = rf"^[^{_CONTROLS}]*[^\s{_CONTROLS}][^{_CONTROLS}]*$"

Email = Annotated[
    str,
    StringConstraints(max_length=MAX_EMAIL_LENGTH),
    AfterValidator(email_address),
    WithJsonSchema(
        {"type": "string", "format": "email", "maxLength": MAX_EMAIL_LENGTH, "examples": ["ada@example.com"]}
    ),
]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=PLAIN),
    AfterValidator(one_form),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 100, "pattern": WORDS, "examples": ["Ada"]}),
]

# 64 bits on both databases: SQLite numbers rows by itself only in a column that is called INTEGER.
MAX_ID = 2**63 - 1
BigId = BigInteger().with_variant(Integer(), "sqlite")
# Ordered by code point on both databases, whatever their locale, so that a list and its cursors agree everywhere.
SortedName = String(100).with_variant(String(100, collation="C"), "postgresql")


class Body(SQLModel):
    """What a client sends: a field that is not named here is a mistake, not a wish."""

    model_config = ConfigDict(extra="forbid")  # type: ignore[assignment]  # SQLModel narrows ConfigDict

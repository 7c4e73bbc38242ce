"""Field types: text of one line or several, e-mail addresses, exact amounts, and times, each validated in one place."""

import re
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, StringConstraints, WithJsonSchema

from app.core.dialects import DECIMALS

# ---- Text ----

# No control characters: PostgreSQL cannot store NUL, and the others do not belong in a name.
CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff"
_PLAIN = re.compile(rf"[^{CONTROLS}\ud800-\udfff]*")  # nor halves of a surrogate pair, which are not UTF-8
NOT_BLANK = r"\S"  # for OpenAPI, which cannot say that text is trimmed


def _plain(value: str) -> str:
    if not _PLAIN.fullmatch(value):
        raise ValueError("use one line of text, with no line breaks or control characters")
    return value


Plain = Annotated[str, AfterValidator(_plain)]


def text_schema(description: str, example: str, **constraints: Any) -> WithJsonSchema:
    """The JSON schema of a text field. It replaces Pydantic's, whose patterns would list control characters."""
    return WithJsonSchema({"type": "string", **constraints, "description": description, "examples": [example]})


def line(max_length: int, example: str, description: str, *, lower: bool = False) -> tuple[Any, ...]:
    """The constraints of one line of text: trimmed, not empty, normalized to NFC and, with `lower`, in lower case.

    The length is that of the normalized text. Text that is too long even if every four characters become one is not
    normalized, only rejected: normalizing takes quadratic time.
    """

    def normalize(value: object) -> object:
        if not isinstance(value, str):
            return value
        text = value.strip()
        if len(text) > 4 * max_length:
            return text
        text = unicodedata.normalize("NFC", _plain(text))
        return unicodedata.normalize("NFC", text.lower()) if lower else text

    return (
        StringConstraints(strip_whitespace=True, min_length=1, max_length=max_length),
        BeforeValidator(normalize),
        text_schema(description, example, minLength=1, maxLength=max_length, pattern=NOT_BLANK),
    )


def lines(max_length: int, example: str, description: str) -> tuple[Any, ...]:
    """The constraints of text of several lines: stored as it was typed, except for white space at the ends."""
    return (
        # PostgreSQL cannot store NUL.
        StringConstraints(strip_whitespace=True, min_length=1, max_length=max_length, pattern=r"^[^\x00]*$"),
        text_schema(description, example, minLength=1, maxLength=max_length, pattern=NOT_BLANK),
    )


Name = Annotated[str, *line(100, "Ada", "The person's name.")]

# ---- E-mail addresses ----

MAX_EMAIL = 254  # RFC 5321 section 4.5.3.1.3
for _domain in ("local", "arpa"):  # mailboxes in home and office networks: printer.local, nas.home.arpa
    SPECIAL_USE_DOMAIN_NAMES.remove(_domain)


def email_address(value: str) -> str:
    """The address as it is stored and compared: valid by RFC 5321 and RFC 6531, normalized, in lower case."""
    if len(value) > MAX_EMAIL:  # checked before anything looks at every character
        raise ValueError("this is not an e-mail address")
    try:
        # Reserved domains such as example.test are allowed, because development and tests use them.
        return validate_email(value.strip(), check_deliverability=False, test_environment=True).normalized.lower()
    except EmailNotValidError as error:
        raise ValueError("this is not an e-mail address") from error


def ascii_address(value: str) -> str:
    """The address with its domain in ASCII, as mail servers without SMTPUTF8 take it."""
    return validate_email(value, check_deliverability=False, test_environment=True).ascii_email or value


def _deliverable(value: str) -> str:
    if not value.rpartition("@")[0].isascii():
        raise ValueError("mail cannot be delivered to this address: use one without accents before the @")
    return value


# An address is not validated again when it is read.
StoredEmail = Annotated[str, text_schema("The e-mail address.", "ada@example.com", format="email", maxLength=MAX_EMAIL)]
Email = Annotated[StoredEmail, AfterValidator(email_address), AfterValidator(_deliverable)]
NO_MAILBOX = "@unverified.invalid"  # the domain of accounts that lost their address (app/accounts/users.py)

# ---- Amounts ----

_STEP = Decimal(1).scaleb(-DECIMALS)
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def _amount(value: object) -> Decimal:
    """An amount that the column stores exactly: above 0, below 10^12, with at most eight decimals. Never rounded."""
    if not isinstance(value, str | int | Decimal) or not _NUMBER.fullmatch(str(value)):
        raise ValueError('this is not a number such as "0.25"')
    amount = Decimal(value)
    if not 0 < amount < 10**12 or amount != amount.quantize(_STEP):
        raise ValueError("use a number above 0 with at most 12 digits before the decimal point and 8 after it")
    return amount


def format_amount(amount: Decimal) -> str:
    """The shortest exact notation without an exponent, such as "10" or "0.1"."""
    digits = f"{amount:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    PlainSerializer(format_amount, return_type=str, when_used="json"),
    # A number is taken too, but only a string is exact in every language.
    text_schema("A decimal number, exact.", "10", pattern=r"^[0-9]{1,12}(\.[0-9]{1,8})?$"),
]

# ---- Times ----


def format_time(value: datetime) -> str:
    """A time in UTC as in RFC 3339, exactly as it is stored. It always has six decimals, as some parsers need."""
    return value.isoformat("T", "microseconds").removesuffix("+00:00") + "Z"


# The type of every time in a table and in a response.
UtcTime = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str, when_used="json"),
    text_schema("In UTC.", "2026-11-24T12:00:00.000000Z", format="date-time"),
]

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _timestamp(value: object) -> object:
    """Rejects what Pydantic would accept as a time without an offset: numbers, plain dates and local times."""
    if isinstance(value, str) and _TIMESTAMP.fullmatch(value):
        return value
    raise ValueError("this is not a date and time such as 2023-10-26T08:29:31Z or 2023-10-26 10:29+02:00")


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC this is outside the years 1 to 9999") from None


Timestamp = Annotated[
    UtcTime,
    BeforeValidator(_timestamp),
    AfterValidator(_utc),
    text_schema("With an offset from UTC.", "2023-10-26T08:29:31.139000Z", format="date-time"),
]


def _day_or_timestamp(value: object) -> object:
    """A day as its first moment; anything else as it is, for `_timestamp` to judge."""
    return f"{value}T00:00:00Z" if len(str(value)) == len("2023-10-26") else value


# One end of a period in a filter: a time, or a day, which stands for its first moment in UTC.
Bound = Annotated[
    Timestamp,
    BeforeValidator(_day_or_timestamp),
    text_schema("A time, or a day in UTC.", "2023-10-26", pattern=r"^\d{4}-\d\d-\d\d"),
]

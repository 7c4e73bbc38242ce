"""Field types: e-mail addresses, names, exact amounts, short text and moments, each validated in one place."""

import re
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, StringConstraints, WithJsonSchema

from app.core.decimals import DECIMALS

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


# ---- Operations ----

MAX_TEXT = 50
_TOO_LARGE = 10**12
_STEP = Decimal(1).scaleb(-DECIMALS)
_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _amount(value: object) -> Decimal:
    """Above 0, below 10^12, at most eight decimals: what the column keeps exactly, and nothing that it would round."""
    if (isinstance(value, str) and _NUMBER.fullmatch(value)) or (
        isinstance(value, int | Decimal) and not isinstance(value, bool)
    ):
        amount = Decimal(value)
    else:
        raise ValueError('this is not a number such as "0.25"')
    if not 0 < amount < _TOO_LARGE or amount != amount.quantize(_STEP):
        raise ValueError("it must be above 0, with at most 12 digits before the point and 8 behind it")
    return amount


def plain(amount: Decimal) -> str:
    """Every digit that counts, no exponent: "10", "0.1"."""
    digits = f"{amount:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


# ---- Short text and moments ----


def _short(value: str) -> str:
    """One form of it, no longer than the column; judged last, since "İ" in lower case is two characters."""
    value = unicodedata.normalize("NFC", value)
    if len(value) > MAX_TEXT:
        raise ValueError(f"it may have at most {MAX_TEXT} characters")
    return value


def _folded(value: str) -> str:
    return _short(unicodedata.normalize("NFC", value).lower())


def _date_time(value: object) -> object:
    """A time with its offset: numbers, plain dates and local times are not taken for one."""
    if isinstance(value, str) and _DATE_TIME.fullmatch(value):
        return value
    raise ValueError("this is not a date and time with an offset, such as 2023-10-26T08:29:31Z")


def _day_or_time(value: object) -> object:
    """In a filter a day stands for its first moment."""
    return _date_time(f"{value}T00:00:00Z" if len(str(value)) == len("2023-10-26") else value)


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC this is outside the years 1 to 9999") from None


def _text_schema(example: str) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": WORDS, "examples": [example]}
    )


_MOMENT_SCHEMA = {"type": "string", "format": "date-time", "examples": ["2023-10-26T08:29:31.139Z"]}
_AMOUNT_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,8})?$"},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": _TOO_LARGE},
    ],
    "examples": ["10"],
}
_BOUND_SCHEMA = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d", "examples": ["2023-10-26"]}
_RAW = StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PLAIN)

Kind = Annotated[str, _RAW, AfterValidator(_folded), _text_schema("sell")]
Instrument = Annotated[str, _RAW, AfterValidator(_folded), _text_schema("BTC")]
Figi = Annotated[str, _RAW, AfterValidator(_short), _text_schema("BBG000B9XRY4")]
Moment = Annotated[datetime, BeforeValidator(_date_time), AfterValidator(_utc), WithJsonSchema(_MOMENT_SCHEMA)]
Bound = Annotated[datetime, BeforeValidator(_day_or_time), AfterValidator(_utc), WithJsonSchema(_BOUND_SCHEMA)]
Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    PlainSerializer(plain, return_type=str, when_used="json"),
    WithJsonSchema(_AMOUNT_SCHEMA, mode="validation"),
]

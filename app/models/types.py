"""What an operation is made of, checked once: exact amounts, short text, and moments."""

import re
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, StringConstraints, WithJsonSchema
from sqlalchemy import Dialect, Numeric, String, TypeDecorator

from app.models.base import PLAIN, WORDS

MAX_TEXT = 50
_DECIMALS = 8
_TOO_LARGE = 10**12
_STEP = Decimal(1).scaleb(-_DECIMALS)
_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


# ---- Exact amounts ----


class ExactDecimal(TypeDecorator[Decimal]):
    """NUMERIC(20,8); on SQLite, whose NUMERIC is a float, text with eight decimals."""

    impl = Numeric(20, _DECIMALS)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(String(21) if dialect.name == "sqlite" else Numeric(20, _DECIMALS))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return f"{value:.{_DECIMALS}f}" if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else Decimal(value)


class ExactSum:
    """SQLite's aggregate exact_sum() over such text: whole numbers of 0.00000001, so nothing is ever rounded."""

    def __init__(self) -> None:
        self._total = 0

    def step(self, amount: str) -> None:
        self._total += int(amount.replace(".", ""))

    def finalize(self) -> str:
        digits = f"{self._total:0{_DECIMALS + 1}d}"
        return f"{digits[:-_DECIMALS]}.{digits[-_DECIMALS:]}"


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

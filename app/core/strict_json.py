"""Strict JSON (RFC 7493, I-JSON): documents that parsers could read differently are refused, and numbers are exact."""

import json
import re
from decimal import Decimal
from typing import Any, NoReturn

_MAX_DIGITS = 40  # more than any number needs; parsing thousands of digits takes quadratic time
_MAX_EXPONENT = 308  # the range of a double (RFC 8259 section 6)
_MAX_MEMBERS = 500  # members and array items in all: each may cause an error, and no body needs more than some twenty
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def parse(body: bytes) -> Any:
    """Parse `body`, or raise JSONDecodeError with the reason. Numbers with a fraction become Decimal.

    8.0 and 1e2 are integers, as in JSON Schema. A byte order mark is ignored (RFC 8259 section 8.1).
    """
    if body.count(b",") >= _MAX_MEMBERS and _STRING.sub(b"", body).count(b",") >= _MAX_MEMBERS:
        _refuse(f"it has more than {_MAX_MEMBERS} members")
    try:
        return _decoder.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        _refuse("it is not UTF-8")
    except RecursionError:
        _refuse("it is nested too deeply")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        _refuse("a name is repeated in an object")
    if not "".join(members).isascii() and any("\ud800" <= char <= "\udfff" for name in members for char in name):
        _refuse("a name contains half a surrogate pair")
    return members


def _number(text: str) -> Decimal | int:
    number = Decimal(text) if len(text) <= _MAX_DIGITS else _refuse("a number has too many digits")
    if abs(number.adjusted()) > _MAX_EXPONENT:
        _refuse("a number is out of range")
    return int(number) if number == number.to_integral_value() else number


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is not a JSON number")


def _refuse(reason: str) -> NoReturn:
    raise json.JSONDecodeError(reason, "", 0)


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_number, parse_float=_number, parse_constant=_constant)

"""JSON as RFC 7493 (I-JSON) narrows it: what two parsers could read differently is refused, and numbers stay exact."""

import json
from decimal import Decimal
from typing import Any, NoReturn

from fastapi import Request

_MAX_DIGITS = 40  # more than any number here has; reading thousands of them takes the square of their count
_MAX_EXPONENT = 308  # a double's range, which RFC 8259 section 6 calls interoperable


class StrictRequest(Request):
    """A request whose `json()` is strict."""

    async def json(self) -> Any:
        return parse(await self.body())


def parse(body: bytes) -> Any:
    """The value in `body`, numbers with a fraction or an exponent as Decimal; else JSONDecodeError with the reason.

    A byte order mark is ignored, as RFC 8259 section 8.1 allows.
    """
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
    if not "".join(members).isascii() and any("\ud800" <= letter <= "\udfff" for name in members for letter in name):
        _refuse("a name holds half a surrogate pair")
    return members


def _integer(text: str) -> int:
    return int(text) if len(text) <= _MAX_DIGITS else _refuse("a number has too many digits")


def _fraction(text: str) -> Decimal:
    number = Decimal(text) if len(text) <= _MAX_DIGITS else _refuse("a number has too many digits")
    return number if abs(number.adjusted()) <= _MAX_EXPONENT else _refuse("a number is out of range")


def _refuse(reason: str) -> NoReturn:
    raise json.JSONDecodeError(reason, "", 0)


_decoder = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_fraction,
    parse_constant=lambda name: _refuse(f"{name} is no number of JSON"),
)

"""Operations as CSV (RFC 4180): the import reads what the export writes, and no spreadsheet evaluates a cell."""

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from io import StringIO
from typing import Any

from pydantic import ValidationError

from app.core.errors import Invalid
from app.models.operation import OperationCreate, OperationPublic
from app.models.types import format_amount

COLUMNS = tuple(OperationCreate.model_fields)
_OPTIONAL = {"instrument_type"}
_FORMULA = re.compile(r"[=+\-@\t\r']")
_ESCAPED = re.compile(r"'[=+\-@\t\r']")

# ---- Writing ----


def header() -> bytes:
    return _encode([COLUMNS])


def encode(operations: Iterable[OperationPublic]) -> bytes:
    """The lines of these operations, without the header."""
    return _encode([_cell(getattr(operation, name)) for name in COLUMNS] for operation in operations)


def _encode(lines: Iterable[Iterable[str]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _cell(value: str | Decimal | datetime | None) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return format_amount(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
    # The apostrophe keeps a spreadsheet from evaluating the cell. Text that begins with one gets another, so that the
    # import can remove it again.
    return f"'{value}" if _FORMULA.match(value) else value


# ---- Reading ----


def decode(content: bytes) -> list[tuple[Any, ...]]:
    """The rows of a file whose header names the columns, each as the values of COLUMNS: objects would take twice the
    memory. Raises Invalid with the number of the first line that is wrong."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(content.count(b"\n", 0, error.start) + 1, "this is not UTF-8") from None
    return list(_rows(text))


def _rows(text: str) -> Iterator[tuple[Any, ...]]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    line = 1
    try:
        names = next(reader, [])
        if len(set(names)) != len(names) or not set(COLUMNS) - _OPTIONAL <= set(names) <= set(COLUMNS):
            raise _invalid(1, f"the first line must name the columns {','.join(COLUMNS)}")
        line = reader.line_num + 1
        for cells in reader:
            if cells:  # empty lines are skipped
                yield _row(line, names, cells)
            line = reader.line_num + 1
    except csv.Error:
        raise _invalid(line, "this is not CSV as defined by RFC 4180") from None


def _row(line: int, names: list[str], cells: list[str]) -> tuple[Any, ...]:
    if len(cells) != len(names):
        raise _invalid(line, f"the line has {len(cells)} cells, but there are {len(names)} columns")
    fields = {
        name: cell[1:] if _ESCAPED.match(cell) else cell
        for name, cell in zip(names, cells, strict=True)
        if cell or name not in _OPTIONAL
    }
    try:
        row = OperationCreate.model_validate(fields)
    except ValidationError as error:
        mistake = error.errors(include_input=False, include_url=False)[0]
        raise _invalid(line, mistake["msg"].removeprefix("Value error, "), str(mistake["loc"][0])) from None
    return tuple(getattr(row, name) for name in COLUMNS)


def _invalid(line: int, message: str, column: str | None = None) -> Invalid:
    place, loc = (f"line {line}, {column}", [line, column]) if column else (f"line {line}", [line])
    error = {"loc": ["body", *loc], "msg": f"{message}.", "type": "csv"}
    return Invalid(f"In {place}: {message}.", errors=[error], line=line)

"""Operations as CSV (RFC 4180): the import reads what the export writes, and no spreadsheet takes a cell for code."""

import csv
import re
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Any

from pydantic import ValidationError

from app.core.errors import Invalid
from app.models.operation import OperationCreate, OperationPublic
from app.models.types import plain

COLUMNS = tuple(OperationCreate.model_fields)
_OPTIONAL = {"instrument_type"}
_FORMULA = re.compile(r"[=+\-@\t\r']")
_MARKED = re.compile(r"'[=+\-@\t\r']")


def header() -> bytes:
    return _encoded([COLUMNS])


def encode(operations: Iterable[OperationPublic]) -> bytes:
    """Lines without the header."""
    return _encoded(
        (
            _marked(operation.type),
            _marked(operation.instrument_type or ""),
            _marked(operation.figi),
            plain(operation.quantity),
            operation.date.isoformat().replace("+00:00", "Z"),
        )
        for operation in operations
    )


def _encoded(lines: Iterable[tuple[str, ...]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _marked(cell: str) -> str:
    """With an apostrophe before what a spreadsheet would compute, and before another one, so that `_bare` undoes it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _bare(cell: str) -> str:
    return cell[1:] if _MARKED.match(cell) else cell


def decode(content: bytes) -> list[tuple[Any, ...]]:
    """All of it, each line as the values of COLUMNS (objects would take twice the memory); or Invalid with the number
    of the first line that is wrong. The header names the columns."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(content.count(b"\n", 0, error.start) + 1, "this is not UTF-8") from None
    return list(_rows(text))


def _rows(text: str) -> Iterator[tuple[Any, ...]]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    line = 1
    try:
        names = next(reader, [])
        if len(set(names)) != len(names) or not set(COLUMNS) - _OPTIONAL <= set(names) <= set(COLUMNS):
            raise _wrong(1, f"the first line names the columns: {','.join(COLUMNS)}")
        line = reader.line_num + 1
        for cells in reader:
            if cells:  # an empty line is none
                yield _row(line, names, cells)
            line = reader.line_num + 1
    except csv.Error:
        raise _wrong(line, "this is not CSV as RFC 4180 has it") from None


def _row(line: int, names: list[str], cells: list[str]) -> tuple[Any, ...]:
    if len(cells) != len(names):
        raise _wrong(line, f"there are {len(cells)} cells, and {len(names)} columns")
    fields = {name: _bare(cell) for name, cell in zip(names, cells, strict=True)}
    for name in _OPTIONAL:
        if fields.get(name) == "":
            del fields[name]
    try:
        row = OperationCreate.model_validate(fields)
    except ValidationError as error:
        mistake = error.errors(include_input=False, include_url=False)[0]
        raise _wrong(line, mistake["msg"].removeprefix("Value error, "), str(mistake["loc"][0])) from None
    return tuple(getattr(row, name) for name in COLUMNS)


def _wrong(line: int, message: str, column: str | None = None) -> Invalid:
    place = f"line {line}, {column}" if column else f"line {line}"
    loc = ["body", line, *([column] if column else [])]
    return Invalid(f"In {place}: {message}.", errors=[{"loc": loc, "msg": f"{message}.", "type": "csv"}], line=line)

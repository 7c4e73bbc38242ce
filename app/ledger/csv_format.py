"""Operations as CSV (RFC 4180), written by the export and read by the import. No spreadsheet evaluates its cells."""

import csv
import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from io import StringIO
from typing import Any

from pydantic import ValidationError

from app.core.errors import Invalid, UnsupportedMediaType
from app.models.operation import MAX_TEXT, OperationCreate, OperationPublic
from app.models.types import format_amount, format_time

COLUMNS = tuple(OperationCreate.model_fields)
_OPTIONAL = {"instrument_type"}
MAX_FAULTY = 20  # lines that one refusal names
_FORMULA = re.compile(r"[=+\-@\t\r']")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?\s*', re.IGNORECASE)  # Excel's own
_MISTAKES = {"string_too_short": "this is empty", "string_too_long": f"use at most {MAX_TEXT} characters"}
_SPACES = re.compile(r"(?<=[0-9])['\u2019 \u00a0\u202f](?=[0-9]{3})")
_GROUPS = re.compile(r"[1-9]\d{0,2}(?P<mark>[.,])\d{3}(?P<more>(?:(?P=mark)\d{3})*(?:(?!(?P=mark))[.,]\d+)?)", re.ASCII)

# ---- Writing ----


def encode(operations: Iterable[OperationPublic]) -> bytes:
    """The lines of these operations, without the header."""
    return encode_lines([cell(getattr(operation, name)) for name in COLUMNS] for operation in operations)


def encode_lines(lines: Iterable[Iterable[str]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


HEADER = encode_lines([COLUMNS])


def cell(value: str | Decimal | datetime | None) -> str:
    if isinstance(value, Decimal):
        return format_amount(value)
    if isinstance(value, datetime):
        return format_time(value)
    text = value or ""
    # The apostrophe keeps a spreadsheet from evaluating the cell. Text that begins with one gets another, so that the
    # import can remove it again.
    return f"'{text}" if _FORMULA.match(text) else text


# ---- Reading ----


def decode(content: bytes) -> list[tuple[Any, ...]]:
    """The rows of a file whose header names the columns, each as the values of COLUMNS: objects would take twice the
    memory. Raises Invalid with the first lines that are wrong, up to MAX_FAULTY."""
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04")):  # gzip; zip and the workbooks of spreadsheets
        raise UnsupportedMediaType("The import reads text. Save the file as CSV, not compressed and not as a workbook.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _invalid(line, "this is not UTF-8: in a spreadsheet, save as CSV UTF-8") from None
    return _rows(StringIO(text, newline=""))


def _rows(file: StringIO) -> list[tuple[Any, ...]]:
    first = file.readline()
    declared = _SEPARATOR_LINE.fullmatch(first)
    separator = declared[1] if declared else max(",;\t", key=first.count)
    if not declared:
        file.seek(0)
    reader = csv.reader(file, delimiter=separator, strict=True)
    line = header_line = 2 if declared else 1
    rows: list[tuple[Any, ...]] = []
    faulty: list[Invalid] = []
    try:
        names = _names(line, next(reader, []))
        line = header_line + reader.line_num
        while len(faulty) < MAX_FAULTY and (cells := next(reader, None)) is not None:
            try:
                if any(cells):  # empty lines are skipped
                    rows.append(_row(line, names, cells, decimal="," if separator == ";" else "."))
            except Invalid as error:
                faulty.append(error)
            line = header_line + reader.line_num
    except csv.Error:
        faulty.append(_invalid(line, "this is not CSV as defined by RFC 4180"))
    if faulty:
        raise _combined(faulty)
    return rows


def _names(line: int, cells: list[str]) -> list[str]:
    """The columns that the header names, in any case and order. Spreadsheets may add empty columns at the end."""
    names = [cell.strip().lower() for cell in cells]
    while names and not names[-1]:
        names.pop()
    columns = ", ".join(COLUMNS)
    if unknown := next((name for name in names if name not in COLUMNS), None):
        # The client's own text is repeated only if it is short and no markup.
        shown = unknown if re.fullmatch(r"[\w .-]{1,64}", unknown) else "?"
        raise _invalid(line, f"there is no column {shown}; the columns are {columns}")
    if len(set(names)) != len(names) or not set(COLUMNS) - _OPTIONAL <= set(names):
        raise _invalid(line, f"the header must name the columns {columns}, each once; instrument_type may be missing")
    return names


def _row(line: int, names: list[str], cells: list[str], *, decimal: str) -> tuple[Any, ...]:
    if len(cells) < len(names) or any(cells[len(names) :]):
        raise _invalid(line, f"the line has {len(cells)} cells, but there are {len(names)} columns")
    texts = [cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell for cell in cells]
    fields = {name: text for name, text in zip(names, texts, strict=False) if text or name not in _OPTIONAL}
    fields["quantity"] = _with_point(line, fields["quantity"].strip(), decimal)
    try:
        row = OperationCreate.model_validate(fields)
    except ValidationError as error:
        mistakes = [_invalid(line, _in_words(e["type"], e["msg"]), str(e["loc"][0])) for e in error.errors()]
        raise _combined(mistakes) from None
    return tuple(getattr(row, name) for name in COLUMNS)


def _in_words(kind: str, message: str) -> str:
    """Our own message, or one in place of Pydantic's, which address developers."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return _MISTAKES.get(kind, "there is no such date")


def _with_point(line: int, number: str, decimal: str) -> str:
    """Convert a number, as a spreadsheet of any country writes it, to a decimal point and no thousands separators.

    A file separated by semicolons has decimal commas: there 1,500 is 1.5, and 1.500 is ambiguous. In other files 1,500
    is ambiguous. A guess could be wrong by a factor of a thousand, so ambiguous numbers are rejected.
    """
    number = _SPACES.sub("", number)
    groups = _GROUPS.fullmatch(number)
    if groups and groups["more"]:
        number = number.replace(groups["mark"], "")
    elif groups and groups["mark"] != decimal:
        small, large = format_amount(Decimal(number.replace(",", "."))), number.replace(groups["mark"], "")
        raise _invalid(line, f"{number} could be {small} or {large}: write it in one of these two ways", "quantity")
    return number.replace(",", ".")


def _invalid(line: int, message: str, column: str | None = None) -> Invalid:
    place = [str(line), column] if column else [str(line)]
    error = {"loc": ["body", *place], "msg": f"{message}.", "type": "csv"}
    return Invalid(f"In line {', '.join(place)}: {message}.", errors=[error], line=line)


def _combined(mistakes: list[Invalid]) -> Invalid:
    """One error that lists the mistakes of all; its detail is that of the first."""
    errors = [error for mistake in mistakes for error in mistake.members["errors"]]
    return Invalid(mistakes[0].detail, errors=errors, line=mistakes[0].members["line"])

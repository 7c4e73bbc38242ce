"""A statement: the operations of a period as CSV and as an HTML page with a chart, in one zip archive."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

from app.core.templating import bars, render
from app.ledger import csv_format
from app.models.operation import OperationPublic
from app.models.types import format_amount

FILES = {"statement.csv": "csv", "statement.html": "html"}  # by name, with the subtype of text/
CSV, PAGE = FILES


@dataclass
class _Total:
    count: int = 0
    quantity: Decimal = Decimal(0)


@dataclass(frozen=True)
class Statement:
    """The archive with the number of its operations and the bytes of its table."""

    archive: bytes
    count: int
    size: int


def make_statement(
    batches: Iterable[list[OperationPublic]], since: datetime | None, until: datetime | None
) -> Statement:
    """Build the archive, holding no more than one batch of operations in memory."""
    months: Counter[str] = Counter()
    totals: defaultdict[tuple[str, str], _Total] = defaultdict(_Total)
    archive = BytesIO()
    with ZipFile(archive, "w", ZIP_DEFLATED) as files:
        with files.open(CSV, "w", force_zip64=True) as lines:
            lines.write(csv_format.header())
            for batch in batches:
                lines.write(csv_format.encode(batch))
                for operation in batch:
                    months[f"{operation.date:%Y-%m}"] += 1
                    total = totals[operation.type, operation.instrument_type or ""]
                    total.count += 1
                    total.quantity += operation.quantity
        rows = [(*key, total.count, format_amount(total.quantity)) for key, total in sorted(totals.items())]
        page = render(PAGE, period=_period(since, until), count=months.total(), bars=bars(months), rows=rows)
        files.writestr(PAGE, page)
    return Statement(archive.getvalue(), months.total(), files.getinfo(CSV).file_size)


def read_file(archive: bytes, name: str) -> bytes:
    with ZipFile(BytesIO(archive)) as files:
        return files.read(name)


def _period(since: datetime | None, until: datetime | None) -> str:
    start, end = (f"{moment:%Y-%m-%d %H:%M}" if moment else None for moment in (since, until))
    return f"From {start or 'the first'} to {end or 'the last'} (UTC)"

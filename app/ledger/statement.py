"""A statement: the operations of a period as CSV and as an HTML document to read and print, in one zip archive."""

from collections.abc import Iterable
from decimal import Decimal
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

from app.core.templating import render
from app.ledger import csv_format
from app.ledger.chart import monthly_chart
from app.models.base import utcnow
from app.models.operation import OperationPublic, Period
from app.models.types import format_amount

CSV, PAGE = "statement.csv", "statement.html"
FILES = {CSV: "csv", PAGE: "html"}  # by name, with the subtype of text/
MAX_ROWS = 1000  # of each table of the document, so that its memory is bounded; the CSV has every operation
_SIGNS = {"buy": 1, "sell": -1}  # of the types that change a holding


class _Sums(dict[tuple[str, str], tuple[int, Decimal]]):
    """The count and the quantity of operations, by two names: exact, but only for the first MAX_ROWS pairs of names,
    after which `is_cut` is true."""

    is_cut = False

    def add(self, operation: OperationPublic, first: str, second: str | None, sign: int = 1) -> None:
        key = (first, second or "")
        if key in self or len(self) < MAX_ROWS:
            count, quantity = self.get(key, (0, Decimal(0)))
            self[key] = (count + 1, quantity + sign * operation.quantity)
        else:
            self.is_cut = True


def make_statement(batches: Iterable[list[OperationPublic]], period: Period, name: str) -> tuple[bytes, dict[str, int]]:
    """Build the archive, holding no more than two batches of operations in memory. `name` is its owner's.

    Returns it with two facts: the number of its operations, and the bytes of its table.
    """
    totals, months, holdings, count = _Sums(), _Sums(), _Sums(), 0
    newest: list[OperationPublic] = []
    archive = BytesIO()
    with ZipFile(archive, "w", ZIP_DEFLATED) as files:
        with files.open(CSV, "w", force_zip64=True) as lines:
            lines.write(csv_format.HEADER)
            for batch in batches:
                lines.write(csv_format.encode(batch))
                newest += batch[: MAX_ROWS - len(newest)]
                count += len(batch)
                for operation in batch:
                    totals.add(operation, operation.type, operation.instrument_type)
                    months.add(operation, operation.type, f"{operation.date:%Y-%m}")
                    if sign := _SIGNS.get(operation.type):
                        holdings.add(operation, operation.figi, operation.instrument_type, sign)
        by_month = [{"type": kind, "month": month, "count": number} for (kind, month), (number, _) in months.items()]
        chart = monthly_chart(by_month, by_quantity=False)
        head = {"person": name, "period": period, "issued": utcnow(), "count": count, "limit": MAX_ROWS}
        tables = {"totals": totals, "holdings": holdings, "operations": newest, "amount": format_amount}
        files.writestr(PAGE, render(PAGE, chart=chart, **head, **tables))
    return archive.getvalue(), {"count": count, "size": files.getinfo(CSV).file_size}


def read_file(archive: bytes, name: str) -> bytes:
    with ZipFile(BytesIO(archive)) as files:
        return files.read(name)

"""Exact decimals on both databases: the column type, and an exact sum for SQLite."""

from decimal import Decimal
from typing import Any

from sqlalchemy import Dialect, Numeric, String, TypeDecorator

DECIMALS = 8


class ExactDecimal(TypeDecorator[Decimal]):
    """NUMERIC(20,8) on PostgreSQL. On SQLite, whose NUMERIC is a float, text with eight decimals."""

    impl = Numeric(20, DECIMALS)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(String(21) if dialect.name == "sqlite" else Numeric(20, DECIMALS))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return f"{value:.{DECIMALS}f}" if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else Decimal(value)


class ExactSum:
    """The SQLite aggregate exact_sum() over such text. It adds integers, so nothing is rounded."""

    def __init__(self) -> None:
        self._total = 0

    def step(self, amount: str) -> None:
        self._total += int(amount.replace(".", ""))

    def finalize(self) -> str:
        digits = f"{self._total:0{DECIMALS + 1}d}"
        return f"{digits[:-DECIMALS]}.{digits[-DECIMALS:]}"

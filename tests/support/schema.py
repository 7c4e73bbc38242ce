"""Schema helpers: the constraint names and rows that a database reports, and sample rows for every table."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Inspector,
    MetaData,
    Table,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.pool import NullPool


def engine_for(url: str, *, foreign_keys: bool = False) -> Engine:
    """Opens transactions as migrations/env.py does: on SQLite real ones, also for DDL, and without foreign keys."""
    if not url.startswith("sqlite"):
        return create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": 30, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA foreign_keys={foreign_keys:d}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def table_names(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {"alembic_version"}


def constraint_names(connection: Connection) -> dict[str, dict[str, str]]:
    """For each table: the name of each constraint and index -> what the naming convention calls it."""
    return {table: dict(_constraints(inspect(connection), table)) for table in table_names(connection)}


def _constraints(schema: Inspector, table: str) -> Iterator[tuple[str, str]]:
    yield str(schema.get_pk_constraint(table)["name"]), f"pk_{table}"
    for unique in schema.get_unique_constraints(table):
        yield str(unique["name"]), _convention("uq", table, unique["column_names"])
    for key in schema.get_foreign_keys(table):
        columns = [*key["constrained_columns"], key["referred_table"]]
        yield str(key["name"]), _convention("fk", table, columns)
    for index in schema.get_indexes(table):
        if "duplicates_constraint" not in index:  # PostgreSQL lists the index of a unique constraint too
            yield str(index["name"]), _convention("ix", table, index["column_names"])
    for check in schema.get_check_constraints(table):
        name = str(check["name"])
        yield name, _convention("ck", table, [name.removeprefix(f"ck_{table}_")])


def _convention(kind: str, table: str, parts: Sequence[str | None]) -> str:
    return "_".join([kind, table, *(part or "?" for part in parts)])


def reflect(connection: Connection) -> list[Table]:
    """The tables of the database, those that others refer to first. The functions below take them from a caller that
    has them: reflecting takes longer than their own work."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def rows(connection: Connection, tables: list[Table] | None = None) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, in the order of their primary keys."""
    return {
        table.name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
        for table in tables or reflect(connection)
    }


def fill(connection: Connection, tables: list[Table] | None = None) -> None:
    """Insert three rows into every table that exists; the third leaves out those that may be null."""
    values: dict[Column[Any], list[Any]] = {}
    for table in tables or reflect(connection):
        choices = _choices(table)
        for column in table.columns:
            values[column] = [_value(column, number, choices, values) for number in (1, 2, 3)]
        stored = [column for column in table.columns if column.computed is None]
        made = [{column.name: values[column][index] for column in stored} for index in range(3)]
        connection.execute(table.insert(), made)


def empty(connection: Connection, tables: list[Table]) -> None:
    """Delete all rows of these tables."""
    for table in reversed(tables):  # a row that refers to another is deleted first
        connection.execute(table.delete())


def _choices(table: Table) -> dict[str, str]:
    """The first value that a check such as "state IN ('queued', 'running')" allows for a column."""
    checks = [str(check.sqltext) for check in table.constraints if isinstance(check, CheckConstraint)]
    return {
        column.name: literals[0]
        for column in table.columns
        for check in checks
        if re.search(rf"\b{column.name}\b", check) and (literals := re.findall(r"'([^']+)'", check))
    }


def _value(column: Column[Any], number: int, choices: dict[str, str], values: dict[Column[Any], list[Any]]) -> Any:
    if column.nullable and number == 3:
        return None
    if column.foreign_keys:
        referred = next(iter(column.foreign_keys)).column
        return values[referred][number - 1] if referred in values else None
    length = getattr(column.type, "length", None) or 32
    made: dict[type, Any] = {
        bool: number == 1,
        int: number,
        Decimal: Decimal(number),
        float: float(number),
        bytes: bytes([number]) * 32,
        datetime: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number),
        date: date(2026, 1, number),
        time: time(number),
        timedelta: timedelta(days=number),
        UUID: UUID(int=number),
        object: ["me", str(number)],  # JSON
        str: choices.get(column.name, f"{number:032x}"[-length:]),
    }
    kind = column.type.python_type
    assert kind in made, f"{column}: add a value for {kind.__name__} columns to _value in tests/support/schema.py"
    return made[kind]

"""Rename a table, and everything that is named after it, in place on both databases: no row is copied.

The `naming_convention` in app/models/base.py puts table names into constraint names, and the application recognizes a
violated constraint by its name. Call `rename_table(op, "hero", "champion")`, and the reverse in the downgrade.
"""

import re
from typing import Protocol

from sqlalchemy import Connection, text


class _Op(Protocol):
    """The part of alembic.op that is used here."""

    def get_bind(self) -> Connection: ...


def rename_table(op_or_connection: _Op | Connection, old: str, new: str) -> None:
    """Rename the table with its constraints, indexes and owned sequences, and the foreign keys that refer to it."""
    connection = op_or_connection if isinstance(op_or_connection, Connection) else op_or_connection.get_bind()
    on_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql(f"ALTER TABLE {_quoted(old)} RENAME TO {_quoted(new)}")
    (_follow_on_sqlite if on_sqlite else _follow_on_postgres)(connection, old, new)


def _own_name(name: str, old: str, new: str) -> str:
    """Rename what begins with the table: pk_hero, ix_hero_name, PostgreSQL's hero_id_seq and hero_id_not_null."""
    return re.sub(rf"^((?:pk|uq|ix|ck|fk)_)?{re.escape(old)}(?=_|$)", lambda found: f"{found[1] or ''}{new}", name)


def _referring_name(name: str, old: str, new: str) -> str:
    """Rename what ends with the table it refers to: fk_medal_hero_id_hero."""
    return re.sub(rf"_{re.escape(old)}$", lambda _: f"_{new}", name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _follow_on_postgres(connection: Connection, old: str, new: str) -> None:
    """Find the dependents in the catalog; the indexes of constraints and the defaults of columns rename themselves."""
    table = {"table": _quoted(new)}
    constraints = text(
        "SELECT conrelid::regclass::text AS owner, conname AS name, conrelid = to_regclass(:table) AS own,"
        " confrelid = to_regclass(:table) AS refers FROM pg_constraint"
        " WHERE conrelid = to_regclass(:table) OR confrelid = to_regclass(:table)"
    )
    for owner, name, own, refers in connection.execute(constraints, table).all():
        renamed = _own_name(name, old, new) if own else name
        renamed = _referring_name(renamed, old, new) if refers else renamed
        if renamed != name:
            connection.exec_driver_sql(f"ALTER TABLE {owner} RENAME CONSTRAINT {_quoted(name)} TO {_quoted(renamed)}")
    relations = text(
        "SELECT relname, relkind FROM pg_class WHERE oid IN (SELECT indexrelid FROM pg_index"
        " WHERE indrelid = to_regclass(:table)) OR relkind = 'S' AND oid IN (SELECT objid FROM pg_depend"
        " WHERE refobjid = to_regclass(:table) AND deptype IN ('a', 'i'))"
    )
    for name, kind in connection.execute(relations, table).all():
        if (renamed := _own_name(name, old, new)) != name:
            what = "SEQUENCE" if kind == "S" else "INDEX"
            connection.exec_driver_sql(f"ALTER {what} {_quoted(name)} RENAME TO {_quoted(renamed)}")


def _follow_on_sqlite(connection: Connection, old: str, new: str) -> None:
    """Edit the CREATE statements, which is the only way to rename a constraint in SQLite, and changes nothing else in
    the file: https://www.sqlite.org/lang_altertable.html#otheralter"""
    indexes = text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :table AND sql IS NOT NULL")
    for name, statement in connection.execute(indexes, {"table": new}).all():
        if (renamed := _own_name(name, old, new)) != name:
            connection.exec_driver_sql(f"DROP INDEX {_quoted(name)}")
            connection.exec_driver_sql(re.sub(rf'"?\b{re.escape(name)}\b"?', _quoted(renamed), statement, count=1))
    tables = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all()
    connection.exec_driver_sql("PRAGMA writable_schema=ON")
    for name, statement in tables:
        edited = _rename_constraints(statement, old, new, own=name == new)
        if edited != statement:
            update = text("UPDATE sqlite_master SET sql = :sql WHERE type = 'table' AND name = :name")
            connection.execute(update, {"sql": edited, "name": name})
    connection.exec_driver_sql("PRAGMA writable_schema=RESET")  # this also reads the schema again


def _rename_constraints(statement: str, old: str, new: str, *, own: bool) -> str:
    """Rename constraints in a CREATE TABLE: all in the renamed table, and in others those that refer to it."""
    named = r'(\bCONSTRAINT\s+"?)([\w$]+)'
    if own:
        statement = re.sub(named, lambda found: found[1] + _own_name(found[2], old, new), statement)
    refers = rf'{named}(?="?\s+(?:FOREIGN KEY\s*\([^)]*\)\s*)?REFERENCES\s+"?{re.escape(new)}\b)'
    return re.sub(refers, lambda found: found[1] + _referring_name(found[2], old, new), statement)

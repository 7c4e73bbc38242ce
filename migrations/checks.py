"""Change the condition of a check constraint in place on both databases. ./scripts/migrate writes the call."""

from sqlalchemy import Connection, text


def change_check(connection: Connection, table: str, name: str, old: str, new: str) -> None:
    """Make `new` the condition of ck_<table>_<name>. SQLite can only be told by editing the CREATE statement:
    https://www.sqlite.org/lang_altertable.html#otheralter"""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA writable_schema=ON")
        edit = text("UPDATE sqlite_master SET sql = replace(sql, :old, :new) WHERE type = 'table' AND name = :name")
        connection.execute(edit, {"old": f"({old})", "new": f"({new})", "name": table})
        connection.exec_driver_sql("PRAGMA writable_schema=RESET")  # this also reads the schema again
    else:
        constraint = f"ck_{table}_{name}"
        connection.exec_driver_sql(f'ALTER TABLE "{table}" DROP CONSTRAINT {constraint}')
        connection.exec_driver_sql(f'ALTER TABLE "{table}" ADD CONSTRAINT {constraint} CHECK ({new})')

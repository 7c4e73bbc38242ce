"""Keep SQLite from issuing an id again: without AUTOINCREMENT it reuses the highest one once that row is deleted.

PostgreSQL's sequences never do. SQLAlchemy's own option would drop the primary key's name, so a migration
that creates a table calls `never_reuse_ids(op.get_bind(), "hero")` afterward.
"""

from sqlalchemy import Connection


def never_reuse_ids(connection: Connection, *tables: str) -> None:
    """Rebuild those tables that lack AUTOINCREMENT, as https://www.sqlite.org/lang_altertable.html#otheralter says.

    Foreign keys have to be off, as they are during migrations: dropping a table would delete its referrers.
    """
    for table in tables if connection.dialect.name == "sqlite" else ():
        named = f"FROM sqlite_master WHERE tbl_name = '{table}' AND type ="
        statement = connection.exec_driver_sql(f"SELECT sql {named} 'table'").scalar()
        if statement is None or "AUTOINCREMENT" in statement:
            continue
        indexes = connection.exec_driver_sql(f"SELECT sql {named} 'index' AND sql IS NOT NULL").scalars().all()
        _head, _, body = statement.partition("(")
        body = body.replace("PRIMARY KEY (id)", "PRIMARY KEY (id AUTOINCREMENT)")
        connection.exec_driver_sql(f"CREATE TABLE _rebuilt ({body}")
        connection.exec_driver_sql(f'INSERT INTO _rebuilt SELECT * FROM "{table}"')  # noqa: S608  # names from our code
        connection.exec_driver_sql(f'DROP TABLE "{table}"')
        connection.exec_driver_sql(f'ALTER TABLE _rebuilt RENAME TO "{table}"')
        for index in indexes:
            connection.exec_driver_sql(index)

"""Plans of the statements that the service's own functions execute."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event
from sqlmodel import Session

from app.dependencies import Page


def plans(connection: Connection, read: Callable[[Session], object]) -> list[str]:
    """The plan of each statement that `read` executes, with the values that it passes."""
    executed: list[tuple[str, Any]] = []

    def note(_connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        executed.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    try:
        with Session(connection) as session:
            read(session)
    finally:
        event.remove(connection, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    return [
        "\n".join(map(str, connection.exec_driver_sql(explain + statement, parameters)))
        for statement, parameters in executed
    ]


class ListPage(Page):
    """The first page of a list, or the one after `position`, without the signed cursor of a request."""

    def __init__(self, position: str | None) -> None:
        self.limit, self.position = 50, None if position is None else [position]

"""Rows read on the event loop: only queries that take a moment are run there."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Integer, Select, bindparam, func, select

from app.core.row_reader import PostgresRowReader, Rows, SqliteRowReader
from app.core.settings import Settings
from tests.support.databases import SECRET_KEY, fresh_database
from tests.support.resources import call
from tests.support.servers import Muster

_NUMBERS = select(bindparam("one", type_=Integer).label("n")).cte("numbers", recursive=True)
_UP_TO = _NUMBERS.union_all(
    select(_NUMBERS.c.n + bindparam("one", type_=Integer)).where(_NUMBERS.c.n < bindparam("most", type_=Integer))
)
COUNT = select((func.count() + 0).label("count")).select_from(_UP_TO)  # takes as long as one likes


def test_a_slow_query_is_left_to_a_session(kind: str, folder: Path, postgres: str) -> None:
    left: list[int] = []

    async def in_a_session(_: Select[Any], parameters: dict[str, Any]) -> Rows:
        left.append(parameters["most"])
        return [{"count": 0}]

    async def count(settings: Settings, *numbers: int) -> list[Rows]:
        reader = (SqliteRowReader if kind == "sqlite" else PostgresRowReader)(settings, in_a_session)
        try:
            return [await reader.all(COUNT, {"one": 1, "most": most}) for most in numbers]
        finally:
            await reader.close()

    with fresh_database(kind, folder, postgres, migrated=False) as url:
        patience = timedelta(milliseconds=300)
        settings = Settings(environment="test", database_url=url, secret_keys=(SECRET_KEY,), statement_timeout=patience)
        rows = asyncio.run(count(settings, 10, 5_000_000, 10))
    assert (rows, left) == ([[{"count": 10}], [{"count": 0}], [{"count": 10}]], [5_000_000])


def test_a_column_that_a_migration_widens_is_read_by_the_release_before(folder: Path, postgres: str) -> None:
    """The statements that its connections have prepared are invalid then: at worst one response asks to try again."""
    with fresh_database("postgresql", folder, postgres) as url, Muster(url, folder, DB_SLOTS="1") as muster:
        admin = muster.admin().tokens()

        def ask(path: str) -> list[int]:
            return [call(muster, admin, "GET", path).status_code for _ in range(20)]

        assert ask("/users/me") + ask("/teams") == [200] * 40
        for table in ("role", "team"):
            muster.sql(f"ALTER TABLE {table} ALTER name TYPE varchar(150)")
        assert ask("/users/me") + ask("/teams") == [200] * 20 + [503] + [200] * 19

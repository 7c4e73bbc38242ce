"""migrations/rename.py: everything that is named after a table follows it, and no row is lost on the way."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.exc import IntegrityError

from app.models.user import User
from migrations.rename import rename_table
from tests.support.schema import constraint_names, engine_for, rows

Begin = Callable[..., AbstractContextManager[Connection]]


def make_tables(connection: Connection, name: str) -> None:
    """A parent, the table that is renamed, a child of it, and a table whose name merely ends alike."""
    metadata = MetaData(naming_convention=User.metadata.naming_convention)
    key: dict[str, Any] = {"primary_key": True}
    Table("team", metadata, Column("id", Integer, **key))
    Table("side_hero", metadata, Column("id", Integer, **key))
    Table(
        name,
        metadata,
        Column("id", Integer, **key),
        Column("name", String(50), nullable=False),
        Column("power", Integer, nullable=False),
        Column("team_id", ForeignKey("team.id"), index=True),
        Column("mentor_id", ForeignKey(f"{name}.id")),
        UniqueConstraint("name"),
        UniqueConstraint("team_id", "name"),
        CheckConstraint("power > 0", name="power"),
        Index(None, "name", "power"),
    )
    Table(
        "medal",
        metadata,
        Column("id", Integer, **key),
        Column("hero_id", ForeignKey(f"{name}.id", ondelete="CASCADE"), index=True, nullable=False),
        Column("side_hero_id", ForeignKey("side_hero.id")),
    )
    metadata.create_all(connection)


FILL = (
    "INSERT INTO team (id) VALUES (7)",
    "INSERT INTO side_hero (id) VALUES (8)",
    "INSERT INTO hero (name, power, mentor_id, team_id) VALUES ('Ada', 3, NULL, 7), ('Grace', 2, 1, 7)",
    "INSERT INTO hero (name, power) VALUES ('Joan', 1)",
    "INSERT INTO medal (hero_id, side_hero_id) VALUES (1, 8), (2, NULL)",
    "DELETE FROM hero WHERE name = 'Joan'",
)


@pytest.fixture
def begin(empty_database_url: str) -> Begin:
    """Opens a transaction on a database with heroes."""

    def begin(*, foreign_keys: bool = False) -> AbstractContextManager[Connection]:
        return engine_for(empty_database_url, foreign_keys=foreign_keys).begin()

    with begin() as connection:
        make_tables(connection, "hero")
        for statement in FILL:
            connection.execute(text(statement))
    return begin


def rename(connection: Connection, old: str, new: str) -> None:
    """Rename the table as a migration does: SQLite does not enforce foreign keys meanwhile."""
    rename_table(Operations(MigrationContext.configure(connection)), old, new)


def test_every_name_is_as_if_the_table_had_been_created_with_the_new_name(begin: Begin) -> None:
    with begin() as connection:
        rename(connection, "hero", "champion")
    with begin() as connection:
        names = constraint_names(connection)
    assert {name: convention for table in names.values() for name, convention in table.items()} == {
        name: name
        for name in (
            *("pk_team", "pk_side_hero", "pk_medal", "fk_medal_hero_id_champion"),
            *("fk_medal_side_hero_id_side_hero", "ix_medal_hero_id", "pk_champion", "uq_champion_name"),
            *("uq_champion_team_id_name", "fk_champion_team_id_team", "fk_champion_mentor_id_champion"),
            *("ix_champion_team_id", "ix_champion_name_power", "ck_champion_power"),
        )
    }


def test_nothing_else_in_the_catalog_keeps_the_old_name(begin: Begin) -> None:
    with begin() as connection:
        rename(connection, "hero", "champion")
        catalog = {
            "sqlite": "SELECT name || ' ' || sql FROM sqlite_master",
            "postgresql": "SELECT relname::text FROM pg_class UNION SELECT conname::text FROM pg_constraint",
        }[connection.dialect.name]
        entries = connection.execute(text(catalog)).scalars().all()
    text_of_all = " ".join(entry for entry in entries if entry).replace("side_hero", "").replace("hero_id", "")
    assert "champion" in text_of_all
    assert "hero" not in text_of_all


def test_rows_stay_and_new_ones_get_the_next_id(begin: Begin) -> None:
    with begin() as connection:
        before = rows(connection)
        rename(connection, "hero", "champion")
        after = rows(connection)
        assert after.pop("champion") == before.pop("hero")
        assert after == before
    with begin() as connection:
        insert = text("INSERT INTO champion (name, power) VALUES ('Hedy', 5) RETURNING id")
        # 3 was Joan's: a sequence gives no number twice, SQLite's plain key gives the highest plus one.
        assert connection.execute(insert).scalar_one() == (4 if connection.dialect.name == "postgresql" else 3)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("INSERT INTO champion (name, power) VALUES ('Ada', 1)", "uq_champion_name|UNIQUE .*: champion.name"),
        ("INSERT INTO champion (name, power) VALUES ('Hedy', 0)", "ck_champion_power"),
        ("INSERT INTO medal (hero_id) VALUES (99)", "fk_medal_hero_id_champion|FOREIGN KEY"),
    ],
)
def test_constraints_still_hold_under_their_new_names(begin: Begin, statement: str, named: str) -> None:
    with begin() as connection:
        rename(connection, "hero", "champion")
    refused = pytest.raises(IntegrityError, match=named)
    with begin(foreign_keys=True) as connection, refused, connection.begin_nested():
        connection.execute(text(statement))


def test_deleting_still_cascades_to_the_child(begin: Begin) -> None:
    with begin() as connection:
        rename(connection, "hero", "champion")
    with begin(foreign_keys=True) as connection:
        connection.execute(text("DELETE FROM champion WHERE name = 'Grace'"))
        assert [medal["hero_id"] for medal in rows(connection)["medal"]] == [1]


def test_there_and_back_again_changes_nothing(begin: Begin) -> None:
    with begin() as connection:
        before = constraint_names(connection), rows(connection), columns(connection)
        rename(connection, "hero", "champion")
        rename(connection, "champion", "hero")
        assert (constraint_names(connection), rows(connection), columns(connection)) == before


def columns(connection: Connection) -> list[Any]:
    """Each column with its type and default, and on SQLite the tables as they were created."""
    if connection.dialect.name == "sqlite":
        statement = "SELECT name, replace(sql, '\"', '') FROM sqlite_master ORDER BY name"
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    else:
        statement = (
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY 1, 2"
        )
    return list(connection.execute(text(statement)))


def test_a_plain_connection_is_accepted_too_and_a_failed_migration_leaves_the_old_name(begin: Begin) -> None:
    with begin() as connection:
        before = constraint_names(connection)
    with begin() as connection:
        rename_table(connection, "hero", "champion")
        connection.rollback()
    with begin() as connection:
        assert constraint_names(connection) == before

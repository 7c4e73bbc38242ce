"""Migrations on both databases: every step down and up keeps the rows, and the head matches the models."""

import os
import re
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlmodel import SQLModel

from app.core.migrations import newest_revision
from app.core.settings import get_settings
from app.models.base import all_tables
from migrations.checks import change_check
from migrations.scopes import grant_scope, revoke_scope
from scripts.migrate import insert_first_roles, missing_scopes
from tests.support.databases import ROOT, SECRET_KEY, fresh_database
from tests.support.processes import Fork
from tests.support.schema import constraint_names, empty, engine_for, fill, reflect, rows, table_names
from tests.support.servers import STARTUP, wait_for

SCRIPTS = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()][::-1]
all_tables()  # the models, which a test that runs before any other has not imported yet


def configure(url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Alembic in this process, on a database of the test's choice."""
    for name, value in {"DATABASE_URL": url, "ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY}.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    return Config(ROOT / "alembic.ini", stdout=StringIO())


@pytest.fixture(autouse=True)
def _settings_of_one_test() -> Iterator[None]:
    yield
    get_settings.cache_clear()


@pytest.fixture
def config(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    return configure(empty_database_url, monkeypatch)


@pytest.fixture
def migrated(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration for a copy of a database migrated from nothing to the head, without a row."""
    with engine_for(database_url).begin() as connection:
        connection.execute(text("DELETE FROM role"))
    return configure(database_url, monkeypatch)


@pytest.mark.slow
def test_each_step_down_and_up_again_keeps_every_row(config: Config, empty_database_url: str) -> None:
    engine = engine_for(empty_database_url)
    tables: list[Table] = []
    for revision in REVISIONS:
        command.upgrade(config, revision)
        tables_below = tables
        with engine.begin() as connection:
            tables = reflect(connection)
            fill(connection, tables)
            above = rows(connection, tables)
        command.downgrade(config, "-1")
        with engine.begin() as connection:
            below = rows(connection, tables_below)
        command.upgrade(config, revision)
        with engine.begin() as connection:
            again = rows(connection, tables)
            empty(connection, tables)
        for table in above.keys() & below.keys():
            assert len(below[table]) == len(above[table]), revision
            shared = above[table][0].keys() & below[table][0].keys()
            kept = [[{name: row[name] for name in shared} for row in state[table]] for state in (above, below, again)]
            assert kept[0] == kept[1] == kept[2], revision


@pytest.mark.slow
def test_down_to_nothing_and_up_again_gives_the_same_schema(migrated: Config, database_url: str) -> None:
    engine = engine_for(database_url)
    with engine.begin() as connection:
        before = constraint_names(connection)
    command.downgrade(migrated, "base")
    with engine.begin() as connection:
        assert table_names(connection) == set()
    command.upgrade(migrated, "head")
    with engine.begin() as connection:
        assert constraint_names(connection) == before


def test_the_migrations_produce_the_schema_of_the_models(migrated: Config, database_url: str) -> None:
    command.check(migrated)
    with engine_for(database_url).begin() as connection:
        connection.execute(text("ALTER TABLE role ADD COLUMN forgotten INTEGER"))
    with pytest.raises(CommandError, match="forgotten"):
        command.check(migrated)


@pytest.mark.usefixtures("migrated")
def test_constraint_names_are_those_of_the_convention_and_of_the_models(database_url: str) -> None:
    """`alembic check` compares neither the names of all constraints nor the checks."""
    with engine_for(database_url).begin() as connection:
        found = constraint_names(connection)
    for table, names in found.items():
        assert names == {convention: convention for convention in names.values()}
        model = SQLModel.metadata.tables[table]
        assert set(names) == {str(constraint.name) for constraint in model.constraints} | {
            str(index.name) for index in model.indexes
        }


@pytest.mark.slow
@pytest.mark.usefixtures("migrated")
def test_the_highest_id_is_not_issued_again_once_its_row_is_deleted(database_url: str) -> None:
    """Checked in every table whose ids reach clients: an offline phone would change another row."""
    tables = [table for table in SQLModel.metadata.sorted_tables if table.autoincrement_column is not None]
    assert len(tables) > 1
    with engine_for(database_url).begin() as connection:
        fill(connection)
        for table in reversed(tables):  # a row that refers to another is deleted first
            if table.name != "role":  # its ids stay inside
                first, second = issue_two_ids(connection, table)
                assert second > first, table.name


def issue_two_ids(connection: Connection, table: Table) -> list[int]:
    """The ids of two rows, the first of which is deleted before the second is inserted."""
    row = dict(connection.execute(table.select().limit(1)).mappings().one())
    del row["id"]
    ids: list[int] = []
    for _ in range(2):
        connection.execute(table.delete())
        ids += connection.execute(table.insert().values(row).returning(table.c.id)).scalars()
    return ids


def test_a_database_of_the_first_release_gains_every_scope_since(config: Config, empty_database_url: str) -> None:
    """./scripts/seed.py creates roles and changes none that exist: a scope reaches those by a migration."""
    missing = missing_scopes(config, engine_for(empty_database_url))
    assert not missing, f'no migration grants {missing}: ./scripts/migrate "grant {next(iter(missing))}" writes one'


@pytest.mark.slow
@pytest.mark.usefixtures("migrated")
def test_a_scope_is_granted_once_to_the_roles_named_and_revoked_from_all(database_url: str) -> None:
    with engine_for(database_url).begin() as connection:
        insert_first_roles(connection)
        before = rows(connection)["role"]
        for _ in range(2):
            grant_scope(connection, "notes", "user")
        assert [row["scopes"][-1] for row in rows(connection)["role"]] == ["notes", before[1]["scopes"][-1]]
        assert rows(connection)["role"][0]["scopes"] == [*before[0]["scopes"], "notes"]
        revoke_scope(connection, "notes")
        assert rows(connection)["role"] == before


@pytest.mark.slow
@pytest.mark.usefixtures("migrated")
def test_the_condition_of_a_check_changes_in_place(database_url: str) -> None:
    engine, new = engine_for(database_url), "state IN ('waiting', 'lost')"
    with engine.begin() as connection:
        fill(connection)
        checks = {check["name"]: check["sqltext"] for check in inspect(connection).get_check_constraints("job")}
        before = rows(connection)["job"]
        change_check(connection, "job", "state", str(checks["ck_job_state"]), new)
    with engine.begin() as connection:
        assert rows(connection)["job"] == before
        connection.execute(text("UPDATE job SET state = 'lost'"))
        with pytest.raises(IntegrityError, match="ck_job_state"):
            connection.execute(text("UPDATE job SET state = 'found'"))


def test_files_are_named_by_date_and_the_last_by_name_is_the_head() -> None:
    files = sorted(path.name for path in (ROOT / "migrations" / "versions").glob("*.py"))
    pattern = re.compile(r"\d{4}_\d\d_\d\d_\d{4}(?:\d\d)?-([0-9a-f]{12})_[a-z0-9_]+\.py")
    assert [match and match[1] for match in map(pattern.fullmatch, files)] == REVISIONS
    assert SCRIPTS.get_heads() == [newest_revision()]


@pytest.mark.slow
def test_two_processes_that_migrate_an_empty_database_at_once_both_succeed(
    empty_database_url: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_database_url, "ENVIRONMENT": "test", "SECRET_KEYS": SECRET_KEY}
    engine = engine_for(empty_database_url)
    with engine.connect() as holder:
        hold(holder)
        both = [Fork(["alembic", "upgrade", "head"], environment, tmp_path / "log") for _ in range(2)]
        wait_for(lambda: are_waiting(holder, both), what="both at the same point")
    assert [process.wait(STARTUP) for process in both] == [0, 0], (tmp_path / "log").read_text()
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == REVISIONS[-1:]


def hold(connection: Connection) -> None:
    """A lock like that of a migrating process: other processes wait for it, and all continue at the same moment."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": 0x6D757374})
    else:
        connection.execute(text("SELECT 1"))  # begins, which takes the lock for writing


def are_waiting(connection: Connection, processes: list[Fork]) -> bool:
    assert not any(process.poll() is not None for process in processes), "one did not wait"
    if connection.dialect.name == "postgresql":
        waiting = text(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
        )
        return bool(connection.execute(waiting).scalar_one() == len(processes))
    path = connection.engine.url.database
    return all(path in [file.path for file in psutil.Process(process.pid).open_files()] for process in processes)


def test_on_sqlite_the_first_to_use_a_migrated_file_waits_for_the_process_that_holds_it(
    folder: Path, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_database("sqlite", folder, postgres, migrated=False) as url:
        command.upgrade(configure(url, monkeypatch), "head")
        with engine_for(url).connect() as holder:
            hold(holder)
            seed = Fork(["scripts.seed"], {**os.environ}, tmp_path / "log")
            wait_for(lambda: are_waiting(holder, [seed]), what="an open file")
            with pytest.raises(TimeoutError):
                seed.wait(1)  # by now it has asked for the lock
        assert seed.wait(STARTUP) == 0


def throw_away(config: Config, folder: Path, *, upgrade: str, downgrade: str = "pass") -> None:
    """Let Alembic write one more migration, into a copy of ours."""
    location = folder / "migrations"
    shutil.copytree(ROOT / "migrations", location)
    config.set_main_option("script_location", str(location))
    script = command.revision(config, "One more")
    path = Path(script.path)  # type: ignore[union-attr]  # one revision is one script
    ours = "from migrations.rename import rename_table\n\nrevision = "
    first, second, third = path.read_text().replace("revision = ", ours, 1).split("    pass\n")
    path.write_text(f"{first}    {upgrade}\n{second}    {downgrade}\n{third}")


@pytest.mark.slow
def test_a_migration_may_rename_a_table(migrated: Config, database_url: str, tmp_path: Path) -> None:
    there, back = 'rename_table(op, "user", "person")', 'rename_table(op, "person", "user")'
    throw_away(migrated, tmp_path, upgrade=there, downgrade=back)
    engine = engine_for(database_url)
    with engine.begin() as connection:
        fill(connection)
        before = rows(connection), constraint_names(connection)
    command.upgrade(migrated, "head")
    with engine.begin() as connection:
        after, names = rows(connection), constraint_names(connection)
    after["user"] = after.pop("person")
    assert after == before[0]
    assert all(name == convention for table in names.values() for name, convention in table.items())
    command.downgrade(migrated, "-1")
    with engine.begin() as connection:
        assert (rows(connection), constraint_names(connection)) == before


def test_on_postgresql_a_migration_gives_up_on_a_held_lock_and_changes_nothing(
    folder: Path, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_database("postgresql", folder, postgres) as url:
        config = configure(url, monkeypatch)
        throw_away(config, tmp_path, upgrade="op.drop_column('user', 'name')")
        engine = engine_for(url)
        with engine.begin() as reader:
            reader.execute(text('SELECT name FROM "user"'))
            with pytest.raises(OperationalError, match="lock timeout"):
                command.upgrade(config, "head")
            reader.execute(text('SELECT name FROM "user"'))
            version = reader.execute(text("SELECT version_num FROM alembic_version"))
            assert version.scalars().all() == REVISIONS[-1:]

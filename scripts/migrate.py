"""Write a migration for what has changed in app/models and app/core/scopes.py, as ./scripts/migrate does."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import os
import sys
import tempfile
from argparse import Namespace
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.operations.ops import AddColumnOp, MigrationScript, ModifyTableOps, UpgradeOps
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, insert, select
from sqlalchemy.pool import NullPool
from sqlmodel import col

from app.core.scopes import ROLES, SCOPES
from app.core.settings import ROOT, get_settings
from app.models.user import Role
from migrations.autogenerate import Call, complete
from migrations.scopes import FIRST_ROLES

WITH_ROLES = "3f1c8a52d7e0"  # the first revision, which creates the table of the roles
GIVE_ONE = 'give the column sa_column_kwargs={"server_default": …}, delete this migration and run this again'


def main() -> None:
    parser = Parser(private=False, prog="./scripts/migrate", description=__doc__)
    parser.add_argument("message", metavar="MESSAGE", help='what changes, such as "add notes"')
    message = parser.parse_args().message
    with tempfile.TemporaryDirectory(prefix="muster-migrate-") as folder:
        path, unfilled = write_migration(f"sqlite:///{folder}/scratch.db", message)
    print(f"Written: {path.relative_to(ROOT)}" if path else "The migrations already match the models.")
    for column in unfilled:
        print(f"muster: existing rows need a value for {column}: {GIVE_ONE}", file=sys.stderr)
    if path and not unfilled:
        print("Read it, then check it on both databases: ./scripts/check")


def write_migration(url: str, message: str) -> tuple[Path | None, list[str]]:
    """Migrate the empty database at `url` and compare it with the models: what is written, and the columns that lack a
    value in existing rows. Nothing is written if nothing differs."""
    os.environ.update(DATABASE_URL=url, ENVIRONMENT="test", SECRET_KEYS="x" * 40)
    get_settings.cache_clear()
    config = Config(ROOT / "alembic.ini", cmd_opts=Namespace(quiet=True))
    engine = create_engine(url, poolclass=NullPool)
    missing, unfilled = missing_scopes(config, engine), list[str]()

    def finish(context: MigrationContext, _revision: Any, scripts: list[MigrationScript]) -> None:
        upgrade, downgrade = scripts[0].upgrade_ops, scripts[0].downgrade_ops
        if upgrade and downgrade:
            complete(context, upgrade, downgrade)
            upgrade.ops += [Call("scopes", "grant_scope", scope, *roles) for scope, roles in missing.items()]
            downgrade.ops[:0] = [Call("scopes", "revoke_scope", scope) for scope in missing]
            unfilled.extend(unfilled_columns(upgrade))
            if upgrade.is_empty():
                scripts.clear()

    with redirect_stdout(StringIO()):  # Alembic names the hooks that it runs, even when it is to be quiet
        written: Any = command.revision(config, message, autogenerate=True, process_revision_directives=finish)
    return Path(written.path) if written else None, unfilled


def unfilled_columns(upgrade: UpgradeOps) -> list[str]:
    """New columns of existing tables which may not be null and have no default."""
    changes = [change for table in upgrade.ops if isinstance(table, ModifyTableOps) for change in table.ops]
    added = [change for change in changes if isinstance(change, AddColumnOp) and not change.column.nullable]
    return [f"{change.table_name}.{change.column.name}" for change in added if change.column.server_default is None]


# ---- Scopes ----


def insert_first_roles(connection: Connection) -> None:
    connection.execute(insert(Role), [{"name": name, "scopes": scopes} for name, scopes in FIRST_ROLES.items()])


def missing_scopes(config: Config, engine: Engine) -> dict[str, list[str]]:
    """Migrate an empty database as one of the first release was: the scopes it lacks then, each with its roles."""
    command.upgrade(config, WITH_ROLES)
    with engine.begin() as connection:
        insert_first_roles(connection)
    command.upgrade(config, "head")
    with engine.connect() as connection:
        rows = connection.execute(select(col(Role.name), col(Role.scopes))).all()
    there = {name: set(scopes) for name, scopes in rows}
    missing = {scope: [name for name in ROLES if scope in ROLES[name] and scope not in there[name]] for scope in SCOPES}
    return {scope: roles for scope, roles in missing.items() if roles}


if __name__ == "__main__":
    main()

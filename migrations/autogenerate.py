"""Additions to Alembic's autogenerate that ./scripts/migrate writes."""

from typing import Any, Literal

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import CreateTableOp, DowngradeOps, MigrateOperation, UpgradeOps
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect
from sqlmodel import SQLModel


class Call(MigrateOperation):
    """A call of a function in migrations/, such as Call("ids", "never_reuse_ids", "note")."""

    def __init__(self, module: str, function: str, *arguments: str) -> None:
        self.module, self.function, self.arguments = module, function, arguments


@renderers.dispatch_for(Call)
def _render_call(context: AutogenContext, call: Call) -> str:
    context.imports.add(f"from migrations.{call.module} import {call.function}")
    return f"{call.function}(op.get_bind(), {', '.join(map(repr, call.arguments))})"


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """A column type of SQLModel by its public name, or one of ours, imported; False leaves the others to Alembic."""
    name, module = type(item).__name__, type(item).__module__
    if kind == "type" and module.startswith("sqlmodel."):
        return f"sqlmodel.{item!r}"
    if kind != "type" or not module.startswith("app."):
        return False
    context.imports.add(f"from {module} import {name}")
    return f"{name}()"


def complete(context: MigrationContext, upgrade: UpgradeOps, downgrade: DowngradeOps) -> None:
    """Add the operations for changes that Alembic does not compare or know."""
    _never_reuse_ids(upgrade)
    _change_checks(context, upgrade, downgrade)


def _never_reuse_ids(upgrade: UpgradeOps) -> None:
    """Add a call of `never_reuse_ids` after new tables with generated ids: migrations/ids.py says why."""
    tables = [operation.to_table() for operation in upgrade.ops if isinstance(operation, CreateTableOp)]
    if generated := [table.name for table in tables if table.autoincrement_column is not None]:
        upgrade.ops.append(Call("ids", "never_reuse_ids", *generated))


def _change_checks(context: MigrationContext, upgrade: UpgradeOps, downgrade: DowngradeOps) -> None:
    """Compare check constraints by their text, which SQLite keeps as it was written; PostgreSQL rewrites it."""
    if context.connection is None or context.dialect.name != "sqlite":
        return
    inspector = inspect(context.connection)
    for table in SQLModel.metadata.sorted_tables:
        there = inspector.get_check_constraints(table.name) if inspector.has_table(table.name) else []
        old = {check["name"]: str(check["sqltext"]) for check in there}
        for constraint in table.constraints:
            if not isinstance(constraint, CheckConstraint) or constraint.name not in old:
                continue
            name = str(constraint.name).removeprefix(f"ck_{table.name}_")
            texts = old[str(constraint.name)], str(constraint.sqltext)
            if texts[0] != texts[1]:
                upgrade.ops.append(Call("checks", "change_check", table.name, name, *texts))
                downgrade.ops.append(Call("checks", "change_check", table.name, name, *texts[::-1]))

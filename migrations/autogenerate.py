"""What `alembic revision --autogenerate` writes for this project beyond what Alembic knows."""

from typing import Any, Literal

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import CreateTableOp, MigrateOperation, MigrationScript


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


def never_reuse_ids(_context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
    """After a new table with generated ids: migrations/ids.py says why."""
    for upgrade in [script.upgrade_ops for script in scripts if script.upgrade_ops]:
        tables = [operation.to_table() for operation in upgrade.ops if isinstance(operation, CreateTableOp)]
        if generated := [table.name for table in tables if table.autoincrement_column is not None]:
            upgrade.ops.append(Call("ids", "never_reuse_ids", *generated))

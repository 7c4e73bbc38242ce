"""Ids: SQLite never issues one again, so that an offline phone never means another row by it."""

from alembic import op

from migrations.ids import never_reuse_ids

revision = "d83b0f5c2a61"
down_revision = "4e6b0d9a81c7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    tables = ("operation", "idempotency_key", "hero", "team", "task", "task_history", "chat_message")
    never_reuse_ids(op.get_bind(), *tables)


def downgrade() -> None:
    """Nothing: the older code works with the rebuilt tables."""

"""Tasks, and the history of their assignees."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "5d2b96f03e18"
down_revision = "c41e7d08a9b3"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPEN = sa.text("closed_at IS NULL")
PEOPLE = ("changed_by", "previous_assignee_id", "new_assignee_id")


def upgrade() -> None:
    op.create_table(
        "task",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("title", sqlmodel.AutoString(length=200), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=True),
        sa.Column("assignee_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("closed_at", sqlmodel.UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["author_id"], ["user.id"], name=op.f("fk_task_author_id_user"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(
            ["assignee_id"], ["user.id"], name=op.f("fk_task_assignee_id_user"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
    )
    op.create_index(op.f("ix_task_author_id_id"), "task", ["author_id", "id"])
    op.create_index(op.f("ix_task_assignee_id_id"), "task", ["assignee_id", "id"])
    op.create_index(op.f("ix_task_id"), "task", ["id"], postgresql_where=OPEN, sqlite_where=OPEN)
    op.create_table(
        "task_history",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("task_id", BIG_ID, nullable=False),
        *(sa.Column(name, sa.Uuid(), nullable=True) for name in PEOPLE),
        sa.Column("changed_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"], ["task.id"], name=op.f("fk_task_history_task_id_task"), ondelete="CASCADE"
        ),
        *(
            sa.ForeignKeyConstraint([name], ["user.id"], name=op.f(f"fk_task_history_{name}_user"), ondelete="SET NULL")
            for name in PEOPLE
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_history")),
    )
    op.create_index(op.f("ix_task_history_task_id_id"), "task_history", ["task_id", "id"])
    for name in PEOPLE:
        op.create_index(op.f(f"ix_task_history_{name}"), "task_history", [name])


def downgrade() -> None:
    op.drop_table("task_history")
    op.drop_table("task")

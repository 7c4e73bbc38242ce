"""Jobs, and an index that finds tombstones old enough to be purged."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "8a6f20c9d4b7"
down_revision = "5d2b96f03e18"
branch_labels = None
depends_on = None

UNENDED = sa.text("finished_at IS NULL")
DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sqlmodel.AutoString(length=20), nullable=False),
        sa.Column("queue", sqlmodel.AutoString(length=20), nullable=False),
        sa.Column("state", sqlmodel.AutoString(length=20), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sqlmodel.AutoString(length=200), nullable=True),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("started_at", sqlmodel.UTCDateTime(), nullable=True),
        sa.Column("finished_at", sqlmodel.UTCDateTime(), nullable=True),
        sa.Column("name", sqlmodel.AutoString(length=50), nullable=True),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("due_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("sent_at", sqlmodel.UTCDateTime(), nullable=True),
        sa.Column("heartbeat_at", sqlmodel.UTCDateTime(), nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("kind IN ('mail', 'statement', 'purge')", name=op.f("ck_job_kind")),
        sa.CheckConstraint("queue IN ('high', 'default')", name=op.f("ck_job_queue")),
        sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'failed', 'cancelled')", name=op.f("ck_job_state")),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f("fk_job_owner_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("name", name=op.f("uq_job_name")),
    )
    op.create_index(op.f("ix_job_owner_id_id"), "job", ["owner_id", "id"])
    op.create_index(op.f("ix_job_finished_at"), "job", ["finished_at"])
    op.create_index(
        op.f("ix_job_state_due_at"), "job", ["state", "due_at"], sqlite_where=UNENDED, postgresql_where=UNENDED
    )
    op.create_index(
        op.f("ix_operation_deleted_at"), "operation", ["deleted_at"], sqlite_where=DELETED, postgresql_where=DELETED
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_operation_deleted_at"), "operation")
    op.drop_table("job")

"""Audit events: who did what to which account, when and from where."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "31915f03db38"
down_revision = "4d6d783ec048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("event", sqlmodel.AutoString(length=50), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("address", sqlmodel.AutoString(length=45), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_event")),
    )
    for column in ("user_id", "actor_id", "event"):
        op.create_index(op.f(f"ix_audit_event_{column}_id"), "audit_event", [column, "id"])


def downgrade() -> None:
    op.drop_table("audit_event")

"""Sessions: one refresh_token row for each signed-in device."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "b7d90e46c12f"
down_revision = "3f1c8a52d7e0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refresh_token",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sqlmodel.AutoString(length=100), nullable=False),
        sa.Column("device", sqlmodel.AutoString(length=100), nullable=False),
        sa.Column("ip", sqlmodel.AutoString(length=45), nullable=False),
        sa.Column("user_agent", sqlmodel.AutoString(length=255), nullable=False),
        sa.Column("scope", sqlmodel.AutoString(length=1000), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("auth_epoch", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("parent_generation", sa.BigInteger(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        sa.Column("rotated_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("created_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("last_used_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("idle_expires_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("absolute_expires_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("revoked_at", sqlmodel.UTCDateTime(), nullable=True),
        sa.Column("revoke_reason", sqlmodel.AutoString(length=50), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_refresh_token_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refresh_token")),
    )
    op.create_index(op.f("ix_refresh_token_user_id_revoked_at"), "refresh_token", ["user_id", "revoked_at"])


def downgrade() -> None:
    op.drop_table("refresh_token")

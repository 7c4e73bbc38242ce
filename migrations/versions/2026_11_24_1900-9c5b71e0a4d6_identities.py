"""Identities: people who sign in at an identity provider."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "9c5b71e0a4d6"
down_revision = "e7a4c19d52b3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sqlmodel.AutoString(length=500), nullable=False),
        sa.Column("subject", sqlmodel.AutoString(length=255), nullable=False),
        sa.Column("created_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("synced_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_identity_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_identity_issuer_subject")),
    )
    op.create_index(op.f("ix_identity_user_id"), "identity", ["user_id"])
    with op.batch_alter_table("user") as batch:
        batch.alter_column("password_hash", existing_type=sqlmodel.AutoString(length=255), nullable=True)


def downgrade() -> None:
    # password_hash stays nullable: older code treats an account without a hash as one whose password is always wrong.
    op.drop_table("identity")

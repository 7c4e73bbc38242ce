"""OAuth clients: the apps that sign people in by authorization code."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "f06a3d7be815"
down_revision = "d83b0f5c2a61"
branch_labels = None
depends_on = None

SORTED_NAME = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "oauth_client",
        sa.Column("id", SORTED_NAME, nullable=False),
        sa.Column("name", sqlmodel.AutoString(length=100), nullable=False),
        sa.Column("redirect_uris", sa.JSON(), nullable=False),
        sa.Column("created_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_client")),
    )


def downgrade() -> None:
    op.drop_table("oauth_client")

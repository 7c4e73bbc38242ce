"""Mailed links: when the newest of each kind expires, so that it ends the older ones."""

import sqlalchemy as sa
from alembic import op

revision = "4e6b0d9a81c7"
down_revision = "9c5b71e0a4d6"
branch_labels = None
depends_on = None

COLUMNS = ("newest_reset", "newest_verification", "newest_email_change")


def upgrade() -> None:
    # With a constant default neither database rewrites the table.
    for name in COLUMNS:
        op.add_column("user", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("user", name)

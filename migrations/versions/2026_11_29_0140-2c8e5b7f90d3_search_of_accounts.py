"""Search of accounts: addresses ordered by code point, and the folded name, so that an index finds how they begin.

On PostgreSQL the index of the addresses is built again and the table is rewritten: seconds for a million accounts.
"""

import sqlalchemy as sa
from alembic import op

revision = "2c8e5b7f90d3"
down_revision = "b52e7c90d1f4"
branch_labels = None
depends_on = None

SORTED_NAME = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")


def upgrade() -> None:
    order_addresses_by("C")
    stored = op.get_bind().dialect.name == "postgresql"  # SQLite can add the other kind alone, and index it too
    lower = sa.Computed("lower(name)", persisted=stored)
    op.add_column("user", sa.Column("folded_name", SORTED_NAME, lower, nullable=True))
    op.create_index(op.f("ix_user_folded_name"), "user", ["folded_name"])


def downgrade() -> None:
    op.drop_index(op.f("ix_user_folded_name"), table_name="user")
    op.drop_column("user", "folded_name")
    order_addresses_by("default")


def order_addresses_by(collation: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f'ALTER TABLE "user" ALTER COLUMN email TYPE VARCHAR(254) COLLATE "{collation}"')

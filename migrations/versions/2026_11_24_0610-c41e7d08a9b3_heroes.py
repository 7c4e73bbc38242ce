"""Heroes, teams, and the link table between them."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "c41e7d08a9b3"
down_revision = "c41d8e2f7a90"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SORTED_NAME = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "hero",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", SORTED_NAME, nullable=False),
        sa.Column("age", sa.Integer(), nullable=True),
        sa.Column("secret_name", sqlmodel.AutoString(length=100), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hero")),
        sa.UniqueConstraint("name", name=op.f("uq_hero_name")),
    )
    op.create_table(
        "team",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", SORTED_NAME, nullable=False),
        sa.Column("headquarters", sqlmodel.AutoString(length=100), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_team")),
        sa.UniqueConstraint("name", name=op.f("uq_team_name")),
    )
    op.create_table(
        "hero_team_link",
        sa.Column("hero_id", BIG_ID, nullable=False),
        sa.Column("team_id", BIG_ID, nullable=False),
        sa.Column("joined_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["hero_id"], ["hero.id"], name=op.f("fk_hero_team_link_hero_id_hero"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["team.id"], name=op.f("fk_hero_team_link_team_id_team"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hero_id", "team_id", name=op.f("pk_hero_team_link")),
    )
    op.create_index(op.f("ix_hero_team_link_team_id"), "hero_team_link", ["team_id"])


def downgrade() -> None:
    op.drop_table("hero_team_link")
    op.drop_table("team")
    op.drop_table("hero")

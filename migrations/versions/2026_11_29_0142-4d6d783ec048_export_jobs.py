"""Export jobs: the archives of everything that is a person's own."""

from alembic import op

from migrations.checks import change_check

revision = "4d6d783ec048"
down_revision = "2c8e5b7f90d3"
branch_labels = None
depends_on = None

BEFORE, AFTER = "kind IN ('mail', 'statement', 'purge')", "kind IN ('mail', 'statement', 'export', 'purge')"


def upgrade() -> None:
    change_check(op.get_bind(), "job", "kind", BEFORE, AFTER)


def downgrade() -> None:
    op.execute("DELETE FROM job WHERE kind = 'export'")
    change_check(op.get_bind(), "job", "kind", AFTER, BEFORE)

"""Authorization codes: sessions that begin with one, and when their person last signed in."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "b52e7c90d1f4"
down_revision = "f06a3d7be815"
branch_labels = None
depends_on = None

COLUMNS = {
    "code_challenge": sqlmodel.AutoString(length=43),
    "redirect_uri": sqlmodel.AutoString(length=500),
    "authenticated_at": sqlmodel.UTCDateTime(),
}


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("refresh_token", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("refresh_token", name)

"""Rooms by their latest message: when it was written, beside its number."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "7be20d5c91f6"
down_revision = "31915f03db38"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # With a constant default neither database rewrites the table, and the release before this one can still add rooms.
    never = sa.text("'1970-01-01 00:00:00.000000'")
    op.add_column(
        "chat_room", sa.Column("last_message_at", sqlmodel.UTCDateTime(), server_default=never, nullable=False)
    )
    op.execute(
        "UPDATE chat_room SET last_message_at = COALESCE("
        "(SELECT MAX(created_at) FROM chat_message WHERE room = chat_room.name), last_message_at)"
    )


def downgrade() -> None:
    op.drop_column("chat_room", "last_message_at")

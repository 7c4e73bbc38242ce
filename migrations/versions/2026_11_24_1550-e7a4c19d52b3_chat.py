"""Chat rooms and their messages."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "e7a4c19d52b3"
down_revision = "8a6f20c9d4b7"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "chat_room",
        sa.Column("name", sqlmodel.AutoString(length=50), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chat_room")),
    )
    op.create_table(
        "chat_message",
        sa.Column("text", sqlmodel.AutoString(length=4096), nullable=False),
        sa.Column("room", sqlmodel.AutoString(length=50), nullable=False),
        sa.Column("client_message_id", sqlmodel.AutoString(length=64), nullable=True),
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["room"], ["chat_room.name"], name=op.f("fk_chat_message_room_chat_room")),
        sa.ForeignKeyConstraint(
            ["author_id"], ["user.id"], name=op.f("fk_chat_message_author_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chat_message")),
        sa.UniqueConstraint("room", "number", name=op.f("uq_chat_message_room_number")),
        sa.UniqueConstraint("author_id", "client_message_id", name=op.f("uq_chat_message_author_id_client_message_id")),
    )


def downgrade() -> None:
    op.drop_table("chat_message")
    op.drop_table("chat_room")

"""The ledger: operations, one revision per owner, and the responses stored for repeated requests."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "c41d8e2f7a90"
down_revision = "b7d90e46c12f"
branch_labels = None
depends_on = None

AMOUNT = sa.Numeric(20, 8).with_variant(sa.String(21), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # With a constant default neither database rewrites the table.
    for name in ("operations_revision", "operations_floor"):
        op.add_column("user", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "operation",
        sa.Column("type", sqlmodel.AutoString(length=50), nullable=False),
        sa.Column("instrument_type", sqlmodel.AutoString(length=50), nullable=True),
        sa.Column("figi", sqlmodel.AutoString(length=50), nullable=False),
        sa.Column("quantity", AMOUNT, nullable=False),
        sa.Column("date", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("updated_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sqlmodel.UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f("fk_operation_owner_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation")),
    )
    op.create_index(op.f("ix_operation_owner_id_revision"), "operation", ["owner_id", "revision"])
    live = sa.text("deleted_at IS NULL")
    for filtered in ([], ["type"], ["instrument_type"], ["figi"]):
        columns = ["owner_id", *filtered, "date", "id"]
        name = op.f(f"ix_operation_{'_'.join(columns)}")
        op.create_index(name, "operation", columns, sqlite_where=live, postgresql_where=live)
    op.create_table(
        "idempotency_key",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("key", sqlmodel.AutoString(length=255), nullable=False),
        sa.Column("fingerprint", sqlmodel.AutoString(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("created_at", sqlmodel.UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["user.id"], name=op.f("fk_idempotency_key_owner_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_key")),
        sa.UniqueConstraint("owner_id", "key", name=op.f("uq_idempotency_key_owner_id_key")),
    )
    op.create_index(op.f("ix_idempotency_key_created_at"), "idempotency_key", ["created_at"])


def downgrade() -> None:
    op.drop_table("idempotency_key")
    op.drop_table("operation")
    for name in ("operations_revision", "operations_floor"):
        op.drop_column("user", name)

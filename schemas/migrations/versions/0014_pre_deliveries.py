"""Where each delivery stands first on the log; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

FIRST = "2026-01-01"


def upgrade() -> None:
    """Go one step on."""
    op.create_table(
        "deliveries",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("slot", sa.Date(), server_default=sa.text(f"'{FIRST}'::date"), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", "slot", name=op.f("pk_deliveries")),
        postgresql_partition_by="LIST (slot)",
    )
    op.execute(
        f"CREATE TABLE deliveries_20260101 PARTITION OF deliveries FOR VALUES IN ('{FIRST}')"
    )


def downgrade() -> None:
    """Go one step back."""
    op.drop_table("deliveries")

"""Subscriptions that the platform makes at the vendor; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Go one step on."""
    table = "webhook_endpoints"
    op.add_column(table, sa.Column("params", JSONB(), nullable=True))
    op.add_column(table, sa.Column("subscription", JSONB(), nullable=True))
    op.add_column(table, sa.Column("renew_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(table, sa.Column("renew_error", sa.Text(), nullable=True))
    op.create_index(
        "ix_webhook_endpoints_renew_at",
        table,
        ["renew_at"],
        postgresql_where=sa.text("renew_at IS NOT NULL"),
    )
    op.create_index("ix_webhook_endpoints_connection_id", table, ["connection_id"])


def downgrade() -> None:
    """Go one step back."""
    table = "webhook_endpoints"
    op.drop_index("ix_webhook_endpoints_connection_id", table)
    op.drop_index("ix_webhook_endpoints_renew_at", table)
    for name in ("renew_error", "renew_at", "subscription", "params"):
        op.drop_column(table, name)

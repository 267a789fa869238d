"""Notices of dead connections, and who sends waiting steps on; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go one step on."""
    op.add_column("connection_events", sa.Column("notify_at", _TIME, nullable=True))
    op.add_column(
        "connection_events",
        sa.Column("notify_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("connection_events", sa.Column("notified_at", _TIME, nullable=True))
    op.add_column("connection_events", sa.Column("notify_error", sa.Text(), nullable=True))
    op.create_index(
        "ix_connection_events_notices",
        "connection_events",
        ["notify_at"],
        postgresql_where=sa.text("notify_at IS NOT NULL"),
    )
    op.add_column("parked_steps", sa.Column("claimed_until", _TIME, nullable=True))


def downgrade() -> None:
    """Go one step back."""
    op.drop_column("parked_steps", "claimed_until")
    op.drop_index("ix_connection_events_notices", table_name="connection_events")
    for name in ("notify_error", "notified_at", "notify_attempts", "notify_at"):
        op.drop_column("connection_events", name)

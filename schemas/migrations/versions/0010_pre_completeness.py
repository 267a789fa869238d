"""Gaps of completeness and the hours that have statements; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go one step on."""
    op.create_table(
        "completeness_gaps",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=True),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("accepted_at", _TIME, nullable=False),
        sa.Column("found_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("partition", "offset", name=op.f("pk_completeness_gaps")),
    )
    op.create_index(
        op.f("ix_completeness_gaps_workspace_id"), "completeness_gaps", ["workspace_id"]
    )
    op.create_table(
        "completeness_hours",
        sa.Column("hour", _TIME, nullable=False),
        sa.Column("ends", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("hour", name=op.f("pk_completeness_hours")),
    )


def downgrade() -> None:
    """Go one step back."""
    op.drop_table("completeness_hours")
    op.drop_table("completeness_gaps")

"""What an execution runs once more; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Go one step on."""
    op.add_column("executions", sa.Column("replay_of", sa.Text(), nullable=True))
    op.add_column("executions", sa.Column("replay_id", sa.Text(), nullable=True))
    op.add_column("executions", sa.Column("effect_version", sa.Integer(), nullable=True))
    op.add_column("executions", sa.Column("effect_generation", sa.Integer(), nullable=True))
    op.create_index(
        "ix_executions_replay_of",
        "executions",
        ["replay_of"],
        postgresql_where=sa.text("replay_of IS NOT NULL"),
    )
    op.drop_column("replay_items", "effect_generation")


def downgrade() -> None:
    """Go one step back."""
    op.add_column("replay_items", sa.Column("effect_generation", sa.Integer(), nullable=True))
    op.drop_index("ix_executions_replay_of", "executions")
    for name in ("effect_generation", "effect_version", "replay_id", "replay_of"):
        op.drop_column("executions", name)

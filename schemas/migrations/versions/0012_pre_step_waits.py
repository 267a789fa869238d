"""Steps that wait for a time, an event or their next attempt; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go one step on."""
    op.create_table(
        "step_waits",
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("loop_index", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("until_at", _TIME, nullable=True),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint(
            "execution_id", "step_id", "loop_index", name=op.f("pk_step_waits")
        ),
    )


def downgrade() -> None:
    """Go one step back."""
    op.drop_table("step_waits")

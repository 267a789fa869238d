"""Where waiting steps stood in the log, and an index by their connection; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Go one step on."""
    # Nothing writes this table before this script.
    op.add_column("parked_steps", sa.Column("partition", sa.Integer(), nullable=False))
    op.add_column("parked_steps", sa.Column("offset", sa.BigInteger(), nullable=False))
    op.drop_column("parked_steps", "named")
    op.drop_index(
        op.f("ix_parked_steps_workspace_id_mode_provider_user_id"), table_name="parked_steps"
    )
    op.create_index(
        op.f("ix_parked_steps_connection_id_id"), "parked_steps", ["connection_id", "id"]
    )


def downgrade() -> None:
    """Go one step back."""
    op.drop_index(op.f("ix_parked_steps_connection_id_id"), table_name="parked_steps")
    op.create_index(
        op.f("ix_parked_steps_workspace_id_mode_provider_user_id"),
        "parked_steps",
        ["workspace_id", "mode", "provider", "user_id"],
    )
    op.add_column("parked_steps", sa.Column("named", sa.Text(), nullable=True))
    op.drop_column("parked_steps", "offset")
    op.drop_column("parked_steps", "partition")

"""The ledger of effects by time: partitions that are dropped whole; goes before the code.

What is there becomes the first partition as it is. An executor of the release before waits at the
ledger until it is replaced: nothing is lost, no call is made.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

FIRST = "2026-01-01"
_PART = "effects_20260101"
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go one step on."""
    op.rename_table("effects", _PART)
    op.drop_constraint("pk_effects", _PART, type_="primary")
    op.add_column(_PART, sa.Column("slot", sa.Date(), server_default=FIRST, nullable=False))
    op.create_primary_key(f"pk_{_PART}", _PART, ["effect_key", "slot"])
    op.create_table(
        "effects",
        sa.Column("effect_key", sa.Text(), nullable=False),
        sa.Column("slot", sa.Date(), server_default=sa.text(f"'{FIRST}'::date"), nullable=False),
        *_rest(),
        sa.PrimaryKeyConstraint("effect_key", "slot", name=op.f("pk_effects")),
        postgresql_partition_by="LIST (slot)",
    )
    op.execute(f"ALTER TABLE effects ATTACH PARTITION {_PART} FOR VALUES IN ('{FIRST}')")


def _rest() -> list[sa.Column[object]]:
    return [
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("started_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("done_at", _TIME, nullable=True),
    ]


def downgrade() -> None:
    """Go one step back; of all partitions together."""
    op.rename_table("effects", "effects_by_time")
    op.execute("ALTER INDEX pk_effects RENAME TO pk_effects_by_time")
    op.create_table(
        "effects",
        sa.Column("effect_key", sa.Text(), nullable=False),
        *_rest(),
        sa.PrimaryKeyConstraint("effect_key", name=op.f("pk_effects")),
    )
    columns = "effect_key, workspace_id, status, result, started_at, done_at"
    op.execute(f"INSERT INTO effects ({columns}) SELECT {columns} FROM effects_by_time")  # noqa: S608
    op.drop_table("effects_by_time")

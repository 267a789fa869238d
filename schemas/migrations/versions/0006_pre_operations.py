"""Redrives, checks of completeness and replays; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_JSON = postgresql.JSONB()


def upgrade() -> None:
    """Go one step on."""
    _dead_letters()
    _completeness()
    _replays()


def _dead_letters() -> None:
    op.add_column("dead_letters", sa.Column("letter_partition", sa.Integer(), nullable=True))
    op.add_column("dead_letters", sa.Column("letter_offset", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_dead_letters_workspace_id_at"), "dead_letters", ["workspace_id", "at"])
    op.create_table(
        "redrives",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("times", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("begun_at", _TIME, nullable=False),
        sa.Column("place", _JSON, nullable=True),
        sa.PrimaryKeyConstraint("topic", "partition", "offset", name=op.f("pk_redrives")),
    )


def _completeness() -> None:
    op.create_table(
        "completeness_positions",
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("partition", name=op.f("pk_completeness_positions")),
    )
    op.create_table(
        "statement_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_statement_keys")),
    )
    op.create_table(
        "statements",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("hour", _TIME, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_statements_workspace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "sequence", name=op.f("pk_statements")),
        sa.UniqueConstraint("workspace_id", "hour", name=op.f("uq_statements_workspace_id_hour")),
    )


def _replays() -> None:
    op.create_table(
        "replays",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("selection", _JSON, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("from_step", sa.Text(), nullable=True),
        sa.Column("input", sa.LargeBinary(), nullable=True),
        sa.Column("rate_per_s", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), sa.Identity(start=1_000_000_000), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("confirmation", sa.LargeBinary(), nullable=True),
        sa.Column("confirm_until", _TIME, nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_replays_workspace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replays")),
    )
    op.create_index(
        op.f("ix_replays_workspace_id_created_at_id"),
        "replays",
        ["workspace_id", "created_at", "id"],
    )
    op.create_index(
        "ix_replays_running",
        "replays",
        ["created_at"],
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "replay_items",
        sa.Column("replay_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=True),
        sa.Column("event_partition", sa.Integer(), nullable=True),
        sa.Column("event_offset", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("new_execution_id", sa.Text(), nullable=True),
        sa.Column("effect_generation", sa.Integer(), nullable=True),
        sa.Column("place", _JSON, nullable=True),
        sa.Column("report", _JSON, nullable=True),
        sa.Column("at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["replay_id"],
            ["replays.id"],
            name=op.f("fk_replay_items_replay_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("replay_id", "sequence", name=op.f("pk_replay_items")),
    )
    op.create_index(op.f("ix_replay_items_new_execution_id"), "replay_items", ["new_execution_id"])
    op.create_index(op.f("ix_replay_items_execution_id"), "replay_items", ["execution_id"])


def downgrade() -> None:
    """Go one step back."""
    for table in ("replay_items", "replays", "statements", "statement_keys"):
        op.drop_table(table)
    op.drop_table("completeness_positions")
    op.drop_table("redrives")
    op.drop_index(op.f("ix_dead_letters_workspace_id_at"), "dead_letters")
    op.drop_column("dead_letters", "letter_offset")
    op.drop_column("dead_letters", "letter_partition")

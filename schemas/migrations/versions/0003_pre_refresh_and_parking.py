"""When a connection is due, its changes and its waiting steps; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go one step on."""
    op.add_column("connections", sa.Column("refresh_at", _TIME, nullable=True))
    op.add_column(
        "connections",
        sa.Column("refresh_failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("connections", sa.Column("unsettled_since", _TIME, nullable=True))
    op.add_column("connections", sa.Column("proven_version", sa.Integer(), nullable=True))
    op.create_index(
        "ix_connections_due",
        "connections",
        ["refresh_at"],
        postgresql_where=sa.text("refresh_at IS NOT NULL"),
    )
    # What was connected before is due as if it had been connected now.
    op.execute(
        "UPDATE connections SET"
        " refresh_at = now() + (expires_at - now()) * (0.75 + 0.05 * random())"
        " WHERE auth_kind = 'oauth2' AND expires_at IS NOT NULL AND state <> 'needs_reauth'"
    )
    op.create_table(
        "connection_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("connection_id", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_connection_events_workspace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connection_events")),
    )
    op.create_index(
        "ix_connection_events_unpublished",
        "connection_events",
        ["id"],
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_index(
        op.f("ix_connection_events_workspace_id_connection_id_id"),
        "connection_events",
        ["workspace_id", "connection_id", "id"],
    )
    op.create_index(op.f("ix_connection_events_at"), "connection_events", ["at"])
    op.create_table(
        "parked_steps",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("effect_key", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("loop_index", sa.Integer(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("connection_id", sa.Text(), nullable=True),
        sa.Column("named", sa.Text(), nullable=True),
        sa.Column("lane", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("headers", postgresql.JSONB(), nullable=False),
        sa.Column("requested_at", _TIME, nullable=False),
        sa.Column("parked_at", _TIME, nullable=False),
        sa.Column("deadline", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_parked_steps_workspace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parked_steps")),
        sa.UniqueConstraint("effect_key", name=op.f("uq_parked_steps_effect_key")),
    )
    op.create_index(op.f("ix_parked_steps_execution_id"), "parked_steps", ["execution_id"])
    op.create_index(op.f("ix_parked_steps_deadline"), "parked_steps", ["deadline"])
    op.create_index(
        "ix_parked_steps_lane",
        "parked_steps",
        ["lane"],
        postgresql_where=sa.text("lane IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_parked_steps_workspace_id_mode_provider_user_id"),
        "parked_steps",
        ["workspace_id", "mode", "provider", "user_id"],
    )


def downgrade() -> None:
    """Go one step back."""
    op.drop_table("parked_steps")
    op.drop_table("connection_events")
    op.drop_index("ix_connections_due", table_name="connections")
    for name in ("proven_version", "unsettled_since", "refresh_failures", "refresh_at"):
        op.drop_column("connections", name)

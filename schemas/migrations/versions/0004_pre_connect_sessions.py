"""Links by which end customers connect their accounts; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go one step on."""
    op.create_table(
        "connect_sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("providers", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("connection_id", sa.Text(), nullable=True),
        sa.Column("return_url", sa.Text(), nullable=True),
        sa.Column("browser", sa.LargeBinary(), nullable=True),
        sa.Column("opened_at", _TIME, nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("result_id", sa.Text(), nullable=True),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_connect_sessions_workspace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connect_sessions")),
        sa.UniqueConstraint("digest", name=op.f("uq_connect_sessions_digest")),
    )
    op.create_index(
        op.f("ix_connect_sessions_workspace_id_expires_at"),
        "connect_sessions",
        ["workspace_id", "expires_at"],
    )
    op.add_column("oauth_states", sa.Column("connect_session_id", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_oauth_states_connect_session_id"),
        "oauth_states",
        "connect_sessions",
        ["connect_session_id"],
        ["id"],
        ondelete="CASCADE",
    )


def downgrade() -> None:
    """Go one step back."""
    op.drop_column("oauth_states", "connect_session_id")
    op.drop_table("connect_sessions")

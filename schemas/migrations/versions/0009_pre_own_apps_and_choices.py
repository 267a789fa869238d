"""Workspaces' own OAuth apps; what a consent is to keep to; goes before the code."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TEXTS = postgresql.ARRAY(sa.Text())


def upgrade() -> None:
    """Go one step on."""
    op.create_table(
        "oauth_apps",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("scopes", _TEXTS, nullable=True),
        sa.Column("redirect_uri", sa.Text(), nullable=True),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_oauth_apps_workspace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workspace_id", "provider", name=op.f("pk_oauth_apps")),
    )
    op.add_column(
        "connections",
        sa.Column("asked_scopes", _TEXTS, server_default=sa.text("'{}'::text[]"), nullable=False),
    )
    op.add_column("connections", sa.Column("client_id", sa.Text(), nullable=True))
    for name, default in (("allow_other_account", "true"), ("require_all_scopes", "false")):
        op.add_column(
            "oauth_states",
            sa.Column(name, sa.Boolean(), server_default=sa.text(default), nullable=False),
        )
    op.add_column("oauth_states", sa.Column("client_id", sa.Text(), nullable=True))
    op.add_column("oauth_states", sa.Column("pending", sa.LargeBinary(), nullable=True))
    op.add_column("oauth_states", sa.Column("choices", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    """Go one step back."""
    for name in ("choices", "pending", "client_id", "require_all_scopes", "allow_other_account"):
        op.drop_column("oauth_states", name)
    op.drop_column("connections", "client_id")
    op.drop_column("connections", "asked_scopes")
    op.drop_table("oauth_apps")

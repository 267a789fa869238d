"""The vault's keys, their rotations, who used a credential, OAuth apps; part of `tables`."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from schemas.table_parts import metadata, owner, time

# Data keys, wrapped: one row a scope. kind `workspace` is wrapped by the root key, kind `user` (an
# end customer) by the workspace's key. Deleting a row makes everything under it unreadable.
# The newest of a scope that is not retired seals; all open.
vault_keys = Table(
    "vault_keys",
    metadata,
    Column("id", Text, primary_key=True),
    owner(),
    Column("kind", Text, nullable=False),
    Column("user_id", Text, nullable=False, server_default=""),
    Column("wrapped", LargeBinary, nullable=False),
    Column("wrapped_by", Text, nullable=False),
    time("created_at", now=True),
    time("retired_at", required=False),
    Index(None, "workspace_id", "kind", "user_id"),
)

# Each rotation of a layer of keys, so that one that was broken off goes on where it was.
key_rotations = Table(
    "key_rotations",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    # root, workspace or user
    Column("layer", Text, nullable=False),
    # Null: of all workspaces
    Column(
        "workspace_id",
        Text,
        ForeignKey("workspaces.id", ondelete="CASCADE"),
    ),
    # Of the root: the key that is to wrap everything
    Column("target", Text),
    # What was sealed or wrapped anew so far, and what could not be opened
    Column("done", BigInteger, nullable=False, server_default=text("0")),
    Column("failed", BigInteger, nullable=False, server_default=text("0")),
    time("started_at"),
    time("finished_at", required=False),
)

# Who was given a connection's credential, gathered in memory and written in batches.
token_uses = Table(
    "token_uses",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    # No foreign key: what happened stays told when the connection is gone.
    Column("connection_id", Text, nullable=False),
    Column("credential_version", Integer, nullable=False),
    # step, proxy, refresh, check or revoke
    Column("purpose", Text, nullable=False),
    # Of a step: its execution and step
    Column("execution_id", Text, nullable=False, server_default=""),
    Column("step_id", Text, nullable=False, server_default=""),
    # The process that was given it: host, stage and a number of its own
    Column("process", Text, nullable=False),
    Column("uses", Integer, nullable=False),
    time("first_at"),
    time("last_at"),
    Index(None, "workspace_id", "connection_id", "last_at"),
    Index("ix_token_uses_last_at", "last_at", postgresql_using="brin"),
)

# A workspace's own OAuth app at a provider, for its live connections.
oauth_apps = Table(
    "oauth_apps",
    metadata,
    owner(),
    Column("provider", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    # Sealed; null for an app without a secret.
    Column("secret", LargeBinary),
    # Instead of the provider's usual ones
    Column("scopes", ARRAY(Text)),
    # Instead of our callback: another address that leads to it
    Column("redirect_uri", Text),
    # An API key or a session
    Column("set_by", Text, nullable=False),
    time("set_at"),
    PrimaryKeyConstraint("workspace_id", "provider"),
)

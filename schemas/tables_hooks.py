"""Addresses for vendors' webhooks; part of `schemas.tables`."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from schemas.table_parts import metadata, owner, time

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    # 130 random bits: where a vendor signs nothing, the address is what vouches for it.
    Column("id", Text, primary_key=True),
    owner(),
    Column("mode", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("label", Text, nullable=False, server_default=""),
    # Where the vendor makes subscriptions per account.
    Column("connection_id", Text, ForeignKey("connections.id", ondelete="CASCADE")),
    # Sealed with the workspace's key; the old one is good until `old_until`.
    Column("secret", LargeBinary),
    Column("old_secret", LargeBinary),
    time("old_until", required=False),
    # Where the platform subscribes at the vendor: what to, `{"id": …}` once it did, and when anew.
    Column("params", JSONB),
    Column("subscription", JSONB),
    time("renew_at", required=False),
    Column("renew_error", Text),
    time("created_at", now=True),
    time("updated_at", now=True),
    Index(None, "workspace_id", "mode", "provider"),
    Index(None, "connection_id"),
    Index(
        "ix_webhook_endpoints_renew_at", "renew_at", postgresql_where=text("renew_at IS NOT NULL")
    ),
)

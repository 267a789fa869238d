"""What is looked for at vendors that do not tell; part of `schemas.tables`."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from schemas.table_parts import metadata, owner, time

polls = Table(
    "polls",
    metadata,
    Column("id", Text, primary_key=True),
    owner(),
    Column("mode", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("connection_id", Text, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    Column("label", Text, nullable=False, server_default=""),
    Column("params", JSONB, nullable=False),
    Column("every_s", Integer, nullable=False),
    # `executors.core.poll.State`; null: it has not looked yet.
    Column("state", JSONB),
    # Counts the looks, which makes events that are published twice the same event.
    Column("turn", BigInteger, nullable=False, server_default="0"),
    # Null: paused.
    time("next_at", required=False),
    time("looked_at", required=False),
    Column("found", BigInteger, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("error_code", Text),
    Column("error", Text),
    # What the vendor no longer tells: from the last good look before it to the first after.
    time("missed_from", required=False),
    time("missed_to", required=False),
    time("created_at", now=True),
    time("updated_at", now=True),
    Index(None, "workspace_id", "mode", "id"),
    Index(None, "connection_id"),
    Index("ix_polls_next_at", "next_at", postgresql_where=text("next_at IS NOT NULL")),
)

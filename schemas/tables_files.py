"""Files between steps and their contents; part of `schemas.tables`."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from schemas.table_parts import metadata, owner, time

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    owner(),
    Column("mode", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    # Hexadecimal; null until the whole content is there.
    Column("sha256", Text),
    Column("execution_id", Text),
    Column("step_id", Text),
    time("created_at", now=True),
    time("expires_at"),
    Index(None, "workspace_id", "mode", "created_at"),
    Index(None, "expires_at"),
)

# Not compressed: most files are already. No workspace: a piece is reached through its file only.
file_pieces = Table(
    "file_pieces",
    metadata,
    Column("file_id", Text, ForeignKey("files.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("file_id", "number"),
)

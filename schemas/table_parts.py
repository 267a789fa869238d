"""What the tables are made of: their metadata and the columns that many of them have."""

from typing import Any

from sqlalchemy import Column, DateTime, ForeignKey, MetaData, Text, func

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def time(name: str, *, required: bool = True, now: bool = False) -> "Column[Any]":
    """Make a `timestamptz`."""
    default = func.now() if now else None
    return Column(name, DateTime(timezone=True), nullable=not required, server_default=default)


def owner() -> "Column[Any]":
    """Name the workspace that a row belongs to, and goes with."""
    return Column(
        "workspace_id", Text, ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False
    )


def person() -> "Column[Any]":
    """Name the person that a row belongs to, and goes with."""
    return Column("person_id", Text, ForeignKey("people.id", ondelete="CASCADE"), nullable=False)

"""What operators do with the log: redrives, checks of completeness, replays; part of `tables`."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from schemas.table_parts import metadata, owner, time

# Generations that replays use; senders' own have nine digits at most (`schemas.incoming`).
FIRST_GENERATION = 1_000_000_000

# Dead letters that were sent again. Apart from `dead_letters`, which a rebuild makes anew.
redrives = Table(
    "redrives",
    metadata,
    # The original place, as in `dead_letters`
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("workspace_id", Text),
    # Who: `operator`, `key_…` or `per_…`
    Column("by", Text, nullable=False),
    Column("times", Integer, nullable=False, server_default=text("1")),
    # Written before the record is sent; where it stands now is written after
    time("begun_at"),
    Column("place", JSONB),
    PrimaryKeyConstraint("topic", "partition", "offset"),
)

# Up to where every offset of the events topic was seen to have an outcome.
completeness_positions = Table(
    "completeness_positions",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
)

# Events that were seen to have no outcome and still have none.
completeness_gaps = Table(
    "completeness_gaps",
    metadata,
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("workspace_id", Text),
    Column("event_id", Text),
    time("accepted_at"),
    time("found_at", now=True),
    PrimaryKeyConstraint("partition", "offset"),
    Index(None, "workspace_id"),
)

# Hours for which statements were issued, and where each partition of the events topic stood at the
# end of the hour: {"0": 1200, …}
completeness_hours = Table(
    "completeness_hours",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("ends", JSONB, nullable=False),
)

# Keys that sign statements: the private part sealed by the vault, the public one kept for ever.
statement_keys = Table(
    "statement_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    time("created_at", now=True),
)

# Signed statements of what became of a workspace's events in an hour; each names the one before.
statements = Table(
    "statements",
    metadata,
    owner(),
    Column("sequence", Integer, nullable=False),
    time("hour"),
    # The signed bytes as they are: canonical JSON
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "sequence"),
    UniqueConstraint("workspace_id", "hour"),
)

replays = Table(
    "replays",
    metadata,
    Column("id", Text, primary_key=True),
    owner(),
    Column("mode", Text, nullable=False),
    # dry, repair or force
    Column("kind", Text, nullable=False),
    # As it was asked for, all defaults filled in
    Column("selection", JSONB, nullable=False),
    # pinned, current or a number
    Column("version", Text, nullable=False),
    Column("from_step", Text),
    # JSON in place of the event's own body
    Column("input", LargeBinary),
    Column("rate_per_s", Integer, nullable=False),
    # awaiting_confirmation, running, paused, cancelled, finished or failed
    Column("status", Text, nullable=False),
    # How its executions differ from the original's, in ids and in effect keys where it forces
    Column("generation", Integer, Identity(start=FIRST_GENERATION), nullable=False),
    Column("total", Integer, nullable=False),
    Column("error", JSONB),
    # SHA-256 of the confirmation token; null: none is awaited
    Column("confirmation", LargeBinary),
    time("confirm_until", required=False),
    Column("created_by", Text, nullable=False),
    time("created_at", now=True),
    time("finished_at", required=False),
    # The process that carries it out, and until when nobody else may
    Column("lease_owner", Text),
    time("lease_until", required=False),
    Index(None, "workspace_id", "created_at", "id"),
    Index("ix_replays_running", "created_at", postgresql_where=text("status = 'running'")),
)

replay_items = Table(
    "replay_items",
    metadata,
    Column("replay_id", Text, ForeignKey("replays.id", ondelete="CASCADE"), nullable=False),
    # From 1, in the order in which they are sent
    Column("sequence", Integer, nullable=False),
    # What is replayed: an execution, or an event that started none
    Column("execution_id", Text),
    Column("event_partition", Integer),
    Column("event_offset", BigInteger),
    # pending; sent; of a dry replay reported; or skipped
    Column("status", Text, nullable=False, server_default="pending"),
    Column("reason", Text, nullable=False, server_default=""),
    # What came of it
    Column("new_execution_id", Text),
    Column("place", JSONB),
    Column("report", JSONB),
    time("at", required=False),
    PrimaryKeyConstraint("replay_id", "sequence"),
    Index(None, "new_execution_id"),
    Index(None, "execution_id"),
)

"""The tables in Postgres, as SQLAlchemy metadata without an engine.

Rows of the read side (`event_outcomes`, `executions`, `steps`, `dead_letters`) can be dropped and
rebuilt from the log; the others are the truth of what they hold. Every query names its workspace.
Times are `timestamptz` (UTC).
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from schemas import (
    tables_consents,
    tables_files,
    tables_hooks,
    tables_keys,
    tables_operations,
    tables_polls,
)
from schemas.table_parts import metadata as metadata
from schemas.table_parts import owner as _owner
from schemas.table_parts import person as _person
from schemas.table_parts import time as _time

oauth_states = tables_consents.oauth_states
vault_keys = tables_keys.vault_keys
webhook_endpoints = tables_hooks.webhook_endpoints
replays = tables_operations.replays
files = tables_files.files
polls = tables_polls.polls

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("webhook_url", Text),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # `whsec_…` secrets sealed by the vault: [{"ciphertext": base64, "expires_at": null | RFC 3339}]
    Column("webhook_secrets", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    _time("created_at", now=True),
    _time("updated_at", now=True),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    _owner(),
    Column("mode", Text, nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("prefix", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False, server_default=text("'{*}'::text[]")),
    # SHA-256 of the key: keys hold 256 random bits, so no slow hash is needed
    Column("digest", LargeBinary, nullable=False, unique=True),
    _time("created_at", now=True),
    _time("expires_at", required=False),
    _time("last_used_at", required=False),
    _time("revoked_at", required=False),
    # The key that this one took over from, and who made it: `key_…` or `per_…`.
    Column("replaces", Text),
    Column("created_by", Text),
    Index(None, "workspace_id", "created_at", "id"),
)

# The developer's own people, who log in ("users" are the developer's customers).
people = Table(
    "people",
    metadata,
    Column("id", Text, primary_key=True),
    # In lower case: one person an address
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, server_default=""),
    # argon2id in PHC form: parameters, salt, hash
    Column("password", Text, nullable=False),
    _time("password_changed_at", now=True),
    _time("created_at", now=True),
)

memberships = Table(
    "memberships",
    metadata,
    _owner(),
    _person(),
    # owner, admin, developer or viewer
    Column("role", Text, nullable=False),
    _time("created_at", now=True),
    PrimaryKeyConstraint("workspace_id", "person_id"),
    Index(None, "person_id"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Text, primary_key=True),
    _owner(),
    Column("email", Text, nullable=False),
    Column("role", Text, nullable=False),
    # SHA-256 of the token, which holds 256 random bits
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("invited_by", Text, nullable=False),
    _time("created_at", now=True),
    _time("expires_at"),
    _time("accepted_at", required=False),
    Index(None, "workspace_id", "created_at", "id"),
)

# A log-in: one family of refresh tokens, of which only the newest is good.
sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    _person(),
    Column("user_agent", Text, nullable=False, server_default=""),
    Column("address", Text, nullable=False, server_default=""),
    _time("created_at"),
    _time("refreshed_at"),
    _time("expires_at"),
    _time("revoked_at", required=False),
    # logout, logout_everywhere, password_changed, password_reset, reuse or too_many
    Column("revoked_for", Text),
    Index(None, "person_id", "created_at", "id"),
    Index(None, "expires_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    # SHA-256 of the token, which holds 256 random bits
    Column("digest", LargeBinary, primary_key=True),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    _time("expires_at"),
    _time("used_at", required=False),
    Index(None, "session_id"),
    Index(None, "expires_at"),
)

# Keys that sign access tokens, sealed under the vault's root.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    _time("created_at"),
    _time("retired_at", required=False),
)

workflows = Table(
    "workflows",
    metadata,
    Column("id", Text, primary_key=True),
    _owner(),
    Column("mode", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    Index(None, "workspace_id", "mode", "id"),
)

workflow_versions = Table(
    "workflow_versions",
    metadata,
    Column("workflow_id", Text, ForeignKey("workflows.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    _owner(),
    # As it was written: JSON, not JSONB, keeps the order of its fields
    Column("definition", JSON, nullable=False),
    # draft: about to be published; published: the log has it; withdrawn: publishing failed, and
    # the number is never used again
    Column("state", Text, nullable=False),
    _time("created_at", now=True),
    PrimaryKeyConstraint("workflow_id", "version"),
    Index(
        "ix_workflow_versions_unpublished", "workflow_id", postgresql_where=text("state = 'draft'")
    ),
)

connections = Table(
    "connections",
    metadata,
    Column("id", Text, primary_key=True),
    _owner(),
    Column("mode", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("label", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False),
    Column("auth_kind", Text, nullable=False, server_default="oauth2"),
    Column("account_id", Text),
    Column("account_name", Text),
    # What URLs need to know of the account: {"subdomain": …} or {"instance_url": …}; not secret.
    Column("variables", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("scopes", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    # The credential as JSON, AES-256-GCM; names its key itself.
    Column("credential", LargeBinary),
    # Counts every change of the credential; refresh is a compare-and-swap on it.
    Column("credential_version", Integer, nullable=False, server_default=text("0")),
    _time("expires_at", required=False),
    Column("lease_owner", Text),
    _time("lease_until", required=False),
    _time("last_refresh_at", required=False),
    Column("last_error", JSONB),
    # When the scheduler is to refresh it; null: never by the clock.
    _time("refresh_at", required=False),
    # Failed ones in a row, for the pause before the next.
    Column("refresh_failures", Integer, nullable=False, server_default=text("0")),
    # Since when a refresh was sent whose answer nobody stored: its process died or it never came.
    _time("unsettled_since", required=False),
    # The newest version that the vendor was seen to accept; until then the pair before is kept.
    Column("proven_version", Integer),
    # What the consent asked for; more or less may have been granted.
    Column("asked_scopes", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    # The OAuth app that it was made with: its refresh token is good for that one only.
    Column("client_id", Text),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    Index(None, "workspace_id", "mode", "provider", "user_id"),
    Index("ix_connections_due", "refresh_at", postgresql_where=text("refresh_at IS NOT NULL")),
)

# Each change of a connection's state, written in the transaction that makes it and published from
# here: the outbox of `nhood.connections.v1`.
connection_events = Table(
    "connection_events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _owner(),
    # No foreign key: what happened stays told when the connection is gone.
    Column("connection_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("label", Text, nullable=False, server_default=""),
    Column("before", Text),
    Column("after", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("message", Text, nullable=False, server_default=""),
    Column("version", Integer, nullable=False),
    _time("at", now=True),
    _time("published_at", required=False),
    # The developer's webhook: when it is (next) told of this; null: never, or it was.
    _time("notify_at", required=False),
    Column("notify_attempts", Integer, nullable=False, server_default=text("0")),
    _time("notified_at", required=False),
    # Why the last attempt failed.
    Column("notify_error", Text),
    Index(
        "ix_connection_events_notices", "notify_at", postgresql_where=text("notify_at IS NOT NULL")
    ),
    Index("ix_connection_events_unpublished", "id", postgresql_where=text("published_at IS NULL")),
    Index(None, "workspace_id", "connection_id", "id"),
    Index(None, "at"),
)

effects = Table(
    "effects",
    metadata,
    Column("effect_key", Text, nullable=False),
    # The partition; the default is the newest one's (`wire.rotation`)
    Column("slot", Date, nullable=False, server_default=text("'2026-01-01'::date")),
    Column("workspace_id", Text, nullable=False),
    # `started` before the call, `done` after it
    Column("status", Text, nullable=False),
    # The StepFinished that was recorded, as its Avro bytes.
    Column("result", LargeBinary),
    _time("started_at", now=True),
    _time("done_at", required=False),
    PrimaryKeyConstraint("effect_key", "slot"),
    postgresql_partition_by="LIST (slot)",
)

# Commands that wait for a customer to connect again: the record as it was, in place of a result.
parked_steps = Table(
    "parked_steps",
    metadata,
    # The order in which they came, in which they go on.
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("effect_key", Text, nullable=False, unique=True),
    _owner(),
    Column("execution_id", Text, nullable=False),
    Column("step_id", Text, nullable=False),
    Column("loop_index", Integer, nullable=False),
    Column("mode", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("user_id", Text),
    # The dead one; of a step in order, the one that its lane waits for
    Column("connection_id", Text),
    # What keeps its order (`executors.runtime.worker.Job.lane`); null: it has none
    Column("lane", Text),
    # needs_reauth or in_order (behind another of its lane)
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    _time("requested_at"),
    _time("parked_at"),
    _time("deadline"),
    # A process is writing it to its topic again until then; null: it waits.
    _time("claimed_until", required=False),
    Index(None, "execution_id"),
    Index(None, "deadline"),
    Index("ix_parked_steps_lane", "lane", postgresql_where=text("lane IS NOT NULL")),
    Index(None, "connection_id", "id"),
)

# Where each delivery stands first on the log (`router.deliveries`).
deliveries = Table(
    "deliveries",
    metadata,
    # 16 bytes of SHA-256 over workspace, mode and event id
    Column("key", LargeBinary, nullable=False),
    # The partition; the default is the newest one's (`wire.rotation`)
    Column("slot", Date, nullable=False, server_default=text("'2026-01-01'::date")),
    # The place on the events topic
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    PrimaryKeyConstraint("key", "slot"),
    postgresql_partition_by="LIST (slot)",
)

event_outcomes = Table(
    "event_outcomes",
    metadata,
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("workspace_id", Text),
    Column("event_id", Text),
    Column("event_type", Text),
    Column("subject", Text),
    Column("mode", Text),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("executions", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    _time("event_time"),
    _time("at"),
    PrimaryKeyConstraint("partition", "offset"),
    Index(None, "workspace_id", "event_id"),
    Index(None, "workspace_id", "at"),
)

executions = Table(
    "executions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("workflow_name", Text, nullable=False, server_default=""),
    Column("version", Integer, nullable=False),
    Column("mode", Text, nullable=False),
    Column("user_id", Text),
    # running, succeeded, failed or cancelled
    Column("status", Text, nullable=False),
    Column("error", JSONB),
    Column("event_id", Text),
    Column("event_partition", Integer),
    Column("event_offset", BigInteger),
    Column("generation", Integer, nullable=False, server_default=text("0")),
    # What it runs once more, and which replay wanted it; of what its effect keys are made (null: of
    # its own version and generation)
    Column("replay_of", Text),
    Column("replay_id", Text),
    Column("effect_version", Integer),
    Column("effect_generation", Integer),
    # How each step ended, from ExecutionFinished: {step: {status, reason, condition}}
    Column("outcome", JSONB),
    _time("event_time", required=False),
    _time("started_at", required=False),
    _time("finished_at", required=False),
    # Log positions of the start and the end, for the timeline: {"partition": …, "offset": …}
    Column("started_place", JSONB),
    Column("finished_place", JSONB),
    Index(None, "workspace_id", "mode", "started_at", "id"),
    Index(None, "workspace_id", "workflow_id", "started_at"),
    Index("ix_executions_replay_of", "replay_of", postgresql_where=text("replay_of IS NOT NULL")),
    Index("ix_executions_running", "started_at", postgresql_where=text("status = 'running'")),
)

steps = Table(
    "steps",
    metadata,
    Column("execution_id", Text, nullable=False),
    Column("step_id", Text, nullable=False),
    Column("loop_index", Integer, nullable=False, server_default=text("0")),
    Column("workspace_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("output", JSONB),
    Column("output_cut", Boolean, nullable=False, server_default=text("false")),
    Column("vendor_id", Text),
    Column("error", JSONB),
    Column("attempts", JSONB),
    Column("request", JSONB),
    Column("response", JSONB),
    Column("connection_id", Text),
    Column("effect_key", Text, nullable=False),
    # {"topic": …, "partition": …, "offset": …} of the command and of the result
    Column("command_place", JSONB),
    Column("result_place", JSONB),
    _time("requested_at", required=False),
    _time("started_at", required=False),
    _time("finished_at", required=False),
    PrimaryKeyConstraint("execution_id", "step_id", "loop_index"),
    Index(None, "workspace_id", "execution_id"),
)

step_waits = Table(
    "step_waits",
    metadata,
    Column("execution_id", Text, nullable=False),
    Column("step_id", Text, nullable=False),
    Column("loop_index", Integer, nullable=False),
    Column("workspace_id", Text, nullable=False),
    # delay, event or retry
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    _time("until_at", required=False),
    _time("at"),
    PrimaryKeyConstraint("execution_id", "step_id", "loop_index"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("workspace_id", Text),
    Column("stage", Text, nullable=False),
    Column("class", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    # Where the letter itself stands; null where it was read by an older release
    Column("letter_partition", Integer),
    Column("letter_offset", BigInteger),
    _time("at"),
    PrimaryKeyConstraint("topic", "partition", "offset"),
    Index(None, "workspace_id", "at"),
)

# How far the projector has read: written in the transaction that writes the rows.
projection_offsets = Table(
    "projection_offsets",
    metadata,
    Column("projection", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    PrimaryKeyConstraint("projection", "topic", "partition"),
)

# Answers to POSTs that carried an Idempotency-Key.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer),
    # Sealed by the vault where the answer holds secrets.
    Column("answer", LargeBinary),
    _time("created_at", now=True),
    UniqueConstraint("scope", "key"),
)

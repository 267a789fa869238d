"""Consents under way, and the links by which customers begin them; part of `schemas.tables`."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, LargeBinary, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from schemas.table_parts import metadata, owner, time

oauth_states = Table(
    "oauth_states",
    metadata,
    # SHA-256 of the state parameter; the parameter itself is kept nowhere.
    Column("digest", LargeBinary, primary_key=True),
    owner(),
    Column("mode", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("label", Text, nullable=False, server_default=""),
    Column("redirect_uri", Text, nullable=False),
    Column("return_url", Text),
    Column("variables", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("scopes", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    # The PKCE verifier, sealed.
    Column("verifier", LargeBinary),
    Column("connection_id", Text),
    # The link by which it was begun: only the browser that opened that one may come back with it.
    Column("connect_session_id", Text, ForeignKey("connect_sessions.id", ondelete="CASCADE")),
    # False where a browser began it without a key: nobody vouched for the user_id then.
    Column("vouched", Boolean, nullable=False, server_default=text("true")),
    # False: only the account that `connection_id` is of will do.
    Column("allow_other_account", Boolean, nullable=False, server_default=text("true")),
    Column("require_all_scopes", Boolean, nullable=False, server_default=text("false")),
    # The OAuth app that it was begun with.
    Column("client_id", Text),
    # A grant of several accounts that waits for one to be chosen: the grant, sealed, and the
    # accounts: [{id, name, variables}].
    Column("pending", LargeBinary),
    Column("choices", JSONB),
    time("expires_at"),
    time("used_at", required=False),
    time("created_at", now=True),
)

# A link by which one end customer connects one account (`token_vault.connect`).
connect_sessions = Table(
    "connect_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    # SHA-256 of the token in the link; the token itself is kept nowhere.
    Column("digest", LargeBinary, nullable=False, unique=True),
    owner(),
    Column("mode", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("label", Text, nullable=False, server_default=""),
    # Null: all that the catalogue has
    Column("providers", ARRAY(Text)),
    # The connection that is to be connected again
    Column("connection_id", Text),
    Column("return_url", Text),
    # SHA-256 of the cookie of the browser that opened it.
    Column("browser", LargeBinary),
    time("opened_at", required=False),
    # How it ended, or how the last try ended: the provider, connected or failed, and why
    Column("provider", Text),
    Column("status", Text),
    Column("error", Text),
    Column("result_id", Text),
    time("expires_at"),
    time("created_at", now=True),
    Index(None, "workspace_id", "expires_at"),
)

"""Every column of sealed bytes is known to the rotation of keys."""

from sqlalchemy import LargeBinary

from schemas.ids import new_id
from schemas.tables import metadata
from token_vault.holders import BRIEF, CREDENTIALS, HOLDERS, ROOT_HOLDERS, WRAPPED_KEYS, unused

# Bytes that are not sealed: digests, signatures, and payloads as they were.
NOT_SEALED = {
    "api_keys.digest",
    "connect_sessions.browser",
    "connect_sessions.digest",
    "deliveries.key",
    "effects.result",
    "file_pieces.data",
    "idempotency_keys.fingerprint",
    "invitations.digest",
    "oauth_states.digest",
    "parked_steps.key",
    "parked_steps.value",
    "refresh_tokens.digest",
    "replays.confirmation",
    "replays.input",
    "statement_keys.public_key",
    "statements.body",
    "statements.signature",
}


def test_every_column_of_bytes_is_reached_by_a_rotation_or_is_no_secret():
    known = {
        *(f"{holder.table}.{holder.column}" for holder in (*HOLDERS, *ROOT_HOLDERS)),
        *(f"{table}.{column}" for table, column in (CREDENTIALS, WRAPPED_KEYS, *BRIEF)),
    }
    found = {
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }
    assert found - NOT_SEALED == known, "add a new column of sealed bytes to token_vault.holders"
    assert found >= NOT_SEALED


def test_columns_that_holders_name_exist():
    for holder in HOLDERS:
        table = metadata.tables[holder.table]
        assert {holder.column, "workspace_id", *holder.ids} <= set(table.columns.keys())


def test_ids_of_keys_are_as_long_as_the_queries_think():
    assert len(new_id("key", 1_700_000_000_000, bytes(10))) == 30
    assert len(new_id("ws", 1_700_000_000_000, bytes(10))) == 29
    assert "from 4 for 30" in unused().as_string(None)
    assert "from 34 for 30" in unused().as_string(None)

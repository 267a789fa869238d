"""Rows of `workspaces` and `api_keys`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from control.core.access import NewKey
from control.store.query import Borrowed, Row, row, rows, run

_COLUMNS = "id, name, email, plan, webhook_url, settings, created_at, updated_at"


async def insert(on: Borrowed, workspace: str, values: Mapping[str, Any]) -> None:
    """Add a workspace.

    Args:
        on: The transaction.
        workspace: Its id.
        values: name, email, plan, webhook_url and settings.
    """
    await run(
        on,
        "INSERT INTO workspaces (id, name, email, plan, webhook_url, settings)"
        " VALUES (%(id)s, %(name)s, %(email)s, %(plan)s, %(webhook_url)s, %(settings)s)",
        {**values, "id": workspace, "settings": Jsonb(values["settings"])},
    )


async def get(on: Borrowed, workspace: str, *, lock: bool = False) -> Row | None:
    """Give a workspace; `lock` makes others who want to change it wait."""
    sql = f"SELECT {_COLUMNS} FROM workspaces WHERE id = %s{' FOR UPDATE' if lock else ''}"  # noqa: S608
    return await row(on, sql, (workspace,))


async def update(on: Borrowed, workspace: str, values: Mapping[str, Any]) -> None:
    """Write name, email, webhook_url and settings."""
    await run(
        on,
        "UPDATE workspaces SET name = %(name)s, email = %(email)s, webhook_url = %(webhook_url)s,"
        " settings = %(settings)s, updated_at = now() WHERE id = %(id)s",
        {**values, "id": workspace, "settings": Jsonb(values["settings"])},
    )


async def webhook_secrets(on: Borrowed, workspace: str) -> list[dict[str, Any]]:
    """Give the sealed secrets, newest first, and keep others from changing them meanwhile."""
    sql = "SELECT webhook_secrets FROM workspaces WHERE id = %s FOR UPDATE"
    found = await row(on, sql, (workspace,))
    return list(found["webhook_secrets"]) if found else []


async def set_webhook_secrets(
    on: Borrowed, workspace: str, secrets: Sequence[Mapping[str, Any]]
) -> None:
    """Write the sealed secrets: `[{"ciphertext": base 64, "expires_at": null | RFC 3339}]`."""
    sql = "UPDATE workspaces SET webhook_secrets = %s, updated_at = now() WHERE id = %s"
    await run(on, sql, (Jsonb(list(secrets)), workspace))


async def insert_key(on: Borrowed, workspace: str, key_id: str, key: NewKey) -> None:
    """Add a key: its digest, never the key."""
    await run(
        on,
        "INSERT INTO api_keys (id, workspace_id, mode, prefix, digest) VALUES (%s, %s, %s, %s, %s)",
        (key_id, workspace, key.mode, key.prefix, key.digest),
    )


async def expire_keys(on: Borrowed, workspace: str, mode: str, at: datetime) -> int:
    """Let every key of this mode end at `at`, or earlier where it ends earlier already."""
    return await run(
        on,
        "UPDATE api_keys SET expires_at = least(expires_at, %(at)s)"
        " WHERE workspace_id = %(workspace)s AND mode = %(mode)s"
        " AND (expires_at IS NULL OR expires_at > now())",
        {"at": at, "workspace": workspace, "mode": mode},
    )


async def keys(on: Borrowed, workspace: str) -> list[Row]:
    """List the keys that still work, newest first."""
    return await rows(
        on,
        "SELECT id AS key_id, mode, prefix, created_at, expires_at, last_used_at FROM api_keys"
        " WHERE workspace_id = %s AND (expires_at IS NULL OR expires_at > now())"
        " ORDER BY created_at DESC, id DESC LIMIT 100",
        (workspace,),
    )


async def find_key(on: Borrowed, digest: bytes) -> Row | None:
    """Find whose key this is, and note that it was used (to the minute)."""
    found = await row(
        on,
        "SELECT id, workspace_id, mode, expires_at, last_used_at IS NULL"
        " OR last_used_at < now() - interval '1 minute' AS unnoted FROM api_keys"
        " WHERE digest = %s AND (expires_at IS NULL OR expires_at > now())",
        (digest,),
    )
    if found is not None and found["unnoted"]:
        await run(on, "UPDATE api_keys SET last_used_at = now() WHERE id = %s", (found["id"],))
    return found

"""Rows of `api_keys`: digests, never keys.

A key works until it expires or is revoked; a rotated one expires at the end of its grace.
"""

from datetime import datetime
from typing import Any

from control.core.access import NewKey
from control.store.query import Borrowed, Row, row, rows, run

_COLUMNS = (
    "id AS key_id, mode, name, prefix, scopes, replaces, created_by, created_at, expires_at,"
    " last_used_at"
)
_LIVE = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"


async def insert(on: Borrowed, workspace: str, key_id: str, key: NewKey, **told: Any) -> None:  # noqa: ANN401
    """Add a key.

    Args:
        on: The transaction.
        workspace: Whose.
        key_id: `key_…`
        key: Its prefix, mode and digest are kept.
        told: name, scopes, expires_at, replaces, created_by, where they are not the default.
    """
    values = {"name": "", "scopes": ["*"], "expires_at": None, "replaces": None} | told
    await run(
        on,
        "INSERT INTO api_keys (id, workspace_id, mode, name, prefix, scopes, digest, expires_at,"
        " replaces, created_by) VALUES (%(id)s, %(workspace)s, %(mode)s, %(name)s, %(prefix)s,"
        " %(scopes)s, %(digest)s, %(expires_at)s, %(replaces)s, %(created_by)s)",
        {
            "created_by": None,
            **values,
            "id": key_id,
            "workspace": workspace,
            "mode": key.mode,
            "prefix": key.prefix,
            "digest": key.digest,
        },
    )


async def lock(on: Borrowed, workspace: str) -> None:
    """Let no one else make, rotate or revoke keys of this workspace until the transaction ends."""
    sql = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 3))"
    await run(on, sql, (f"keys/{workspace}",))


async def get(on: Borrowed, workspace: str, key_id: str) -> Row | None:
    """Give a key that works."""
    return await row(
        on,
        f"SELECT {_COLUMNS} FROM api_keys WHERE workspace_id = %s AND id = %s AND {_LIVE}",  # noqa: S608
        (workspace, key_id),
    )


async def successor(on: Borrowed, workspace: str, key_id: str) -> Row | None:
    """Give the key that works and took over from this one."""
    return await row(
        on,
        f"SELECT {_COLUMNS} FROM api_keys WHERE workspace_id = %s AND replaces = %s AND {_LIVE}",  # noqa: S608
        (workspace, key_id),
    )


async def page(
    on: Borrowed, workspace: str, after: tuple[int, str] | None, limit: int
) -> list[Row]:
    """List the keys that work, newest first."""
    micros, identity = after or (None, None)
    return await rows(
        on,
        f"SELECT {_COLUMNS}, (extract(epoch FROM created_at) * 1000000)::bigint AS sort_us"  # noqa: S608
        f" FROM api_keys WHERE workspace_id = %(workspace)s AND {_LIVE}"
        " AND (%(us)s::bigint IS NULL OR (created_at, id) <"
        " ('epoch'::timestamptz + %(us)s::bigint * interval '1 microsecond', %(after)s::text))"
        " ORDER BY created_at DESC, id DESC LIMIT %(limit)s",
        {"workspace": workspace, "us": micros, "after": identity, "limit": limit},
    )


async def count(on: Borrowed, workspace: str) -> int:
    """Count the keys that work."""
    sql = f"SELECT count(*) AS n FROM api_keys WHERE workspace_id = %s AND {_LIVE}"  # noqa: S608
    found = await row(on, sql, (workspace,))
    return int(found["n"]) if found else 0


async def other_full_keys(on: Borrowed, workspace: str, key_id: str) -> int:
    """Count the unrestricted live keys besides this one that do not end by themselves."""
    found = await row(
        on,
        "SELECT count(*) AS n FROM api_keys WHERE workspace_id = %s AND id <> %s"
        " AND mode = 'live' AND scopes = '{*}' AND revoked_at IS NULL AND expires_at IS NULL",
        (workspace, key_id),
    )
    return int(found["n"]) if found else 0


async def expire(on: Borrowed, workspace: str, key_id: str, at: datetime) -> None:
    """Let a key end at `at`, or earlier where it ends earlier already."""
    sql = (
        "UPDATE api_keys SET expires_at = least(expires_at, %s) WHERE workspace_id = %s AND id = %s"
    )
    await run(on, sql, (at, workspace, key_id))


async def expire_full(on: Borrowed, workspace: str, mode: str, at: datetime) -> int:
    """Let every unrestricted key of a mode end at `at`, or earlier where it does already."""
    return await run(
        on,
        f"UPDATE api_keys SET expires_at = least(expires_at, %(at)s)"  # noqa: S608
        f" WHERE workspace_id = %(workspace)s AND mode = %(mode)s AND scopes = '{{*}}' AND {_LIVE}",
        {"at": at, "workspace": workspace, "mode": mode},
    )


async def revoke(on: Borrowed, workspace: str, key_id: str) -> bool:
    """End a key now; False where there is none that works."""
    sql = (
        "UPDATE api_keys SET revoked_at = now()"  # noqa: S608
        f" WHERE workspace_id = %s AND id = %s AND {_LIVE}"
    )
    return await run(on, sql, (workspace, key_id)) == 1


async def find(on: Borrowed, digest: bytes) -> Row | None:
    """Find whose key this is, and note that it was used: at most once a minute."""
    found = await row(
        on,
        "SELECT id, workspace_id, mode, scopes, expires_at, last_used_at IS NULL"  # noqa: S608
        " OR last_used_at < now() - interval '1 minute' AS unnoted FROM api_keys"
        f" WHERE digest = %s AND {_LIVE}",
        (digest,),
    )
    if found is not None and found["unnoted"]:
        await run(
            on,
            "UPDATE api_keys SET last_used_at = now() WHERE id = %s"
            " AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
            (found["id"],),
        )
    return found

"""Keeps signed statements, the keys that sign them, and the hours that have them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from psycopg.types.json import Jsonb

from control.core.completeness import Ranges
from control.store.query import Borrowed, Row, row, rows, run

# Held by whoever issues statements, so that nobody does it at the same time.
_LOCK: Final = 0x6E68_6F6F_6405


async def take_turn(on: Borrowed) -> bool:
    """Say whether nobody else issues statements, until this transaction ends."""
    found = await row(on, "SELECT pg_try_advisory_xact_lock(%s) AS ours", (_LOCK,))
    return found is not None and bool(found["ours"])


async def last_hour(on: Borrowed) -> tuple[datetime, dict[int, int]] | None:
    """Give the last hour that was dealt with, by its end, and where the topic stood then."""
    found = await row(on, "SELECT hour, ends FROM completeness_hours ORDER BY hour DESC LIMIT 1")
    if found is None:
        return None
    return found["hour"], {int(name): end for name, end in found["ends"].items()}


async def add_hour(on: Borrowed, hour: datetime, ends: Mapping[int, int]) -> None:
    """Note that an hour was dealt with."""
    told = {str(partition): end for partition, end in ends.items()}
    await run(
        on, "INSERT INTO completeness_hours (hour, ends) VALUES (%s, %s)", (hour, Jsonb(told))
    )


async def workspaces(on: Borrowed, ranges: Ranges) -> list[str]:
    """Give those of whom something was accepted in these ranges, and who are still there."""
    found = await rows(
        on,
        "SELECT DISTINCT o.workspace_id AS id"
        ' FROM unnest(%s::int4[], %s::int8[], %s::int8[]) r(p, first, "end")'
        ' JOIN (SELECT partition, "offset", workspace_id FROM event_outcomes'
        ' UNION ALL SELECT partition, "offset", workspace_id FROM completeness_gaps) o'
        ' ON o.partition = r.p AND o."offset" >= r.first AND o."offset" < r."end"'
        " JOIN workspaces w ON w.id = o.workspace_id ORDER BY 1",
        (
            list(ranges),
            [first for first, _ in ranges.values()],
            [end for _, end in ranges.values()],
        ),
    )
    return [item["id"] for item in found]


async def lost(on: Borrowed, ranges: Ranges, workspace: str) -> list[Row]:
    """Give the open gaps of a workspace in these ranges."""
    return await rows(
        on,
        'SELECT g.partition, g."offset", g.event_id'
        ' FROM unnest(%s::int4[], %s::int8[], %s::int8[]) r(p, first, "end")'
        ' JOIN completeness_gaps g ON g.partition = r.p AND g."offset" >= r.first'
        ' AND g."offset" < r."end" WHERE g.workspace_id = %s ORDER BY 1, 2',
        (
            list(ranges),
            [first for first, _ in ranges.values()],
            [end for _, end in ranges.values()],
            workspace,
        ),
    )


_STATEMENT: Final = (
    "SELECT s.sequence, s.hour, s.body, s.signature, s.key_id, k.public_key"
    " FROM statements s JOIN statement_keys k ON k.id = s.key_id WHERE s.workspace_id = %s"
)


async def last(on: Borrowed, workspace: str) -> Row | None:
    """Give a workspace's newest statement."""
    return await row(on, f"{_STATEMENT} ORDER BY s.sequence DESC LIMIT 1", (workspace,))


async def page(on: Borrowed, workspace: str, before: int | None, limit: int) -> list[Row]:
    """List a workspace's statements, newest first."""
    return await rows(
        on,
        f"{_STATEMENT} AND s.sequence < %s ORDER BY s.sequence DESC LIMIT %s",
        (workspace, 2**31 - 1 if before is None else before, limit),
    )


async def get(on: Borrowed, workspace: str, sequence: int) -> Row | None:
    """Give one statement."""
    return await row(on, f"{_STATEMENT} AND s.sequence = %s", (workspace, sequence))


async def insert(on: Borrowed, workspace: str, values: Row) -> None:
    """Keep a statement: sequence, hour, body, signature, key_id."""
    await run(
        on,
        "INSERT INTO statements (workspace_id, sequence, hour, body, signature, key_id)"
        " VALUES (%(workspace)s, %(sequence)s, %(hour)s, %(body)s, %(signature)s, %(key_id)s)",
        {**values, "workspace": workspace},
    )


async def keys(on: Borrowed) -> list[Row]:
    """Give all keys, newest first; the private part is sealed."""
    return await rows(
        on,
        "SELECT id, sealed, public_key, created_at FROM statement_keys"
        " ORDER BY created_at DESC, id",
    )


async def add_key(on: Borrowed, name: str, sealed: bytes, public_key: bytes) -> None:
    """Keep a new key."""
    await run(
        on,
        "INSERT INTO statement_keys (id, sealed, public_key) VALUES (%s, %s, %s)",
        (name, sealed, public_key),
    )

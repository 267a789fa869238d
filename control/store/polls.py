"""Keeps what a workspace has looked for at vendors; the executors look (`executors.runtime`)."""

from collections.abc import Mapping
from typing import Any, Final

from psycopg.types.json import Jsonb

from control.store.query import Borrowed, Row, row, rows, run

_COLUMNS: Final = (
    "id, mode, provider, event, connection_id, label, params, every_s, state IS NOT NULL AS begun,"
    " next_at, looked_at, found, failures, error_code, error, missed_from, missed_to, created_at,"
    " updated_at"
)


async def count(on: Borrowed, workspace: str) -> int:
    """Say how many a workspace has."""
    found = await row(on, "SELECT count(*) AS n FROM polls WHERE workspace_id = %s", (workspace,))
    return int(found["n"]) if found else 0


async def insert(on: Borrowed, values: Mapping[str, Any]) -> None:
    """Keep a new one; it looks at once."""
    await run(
        on,
        "INSERT INTO polls (id, workspace_id, mode, provider, event, connection_id, label, params,"
        " every_s, next_at) VALUES (%(id)s, %(workspace)s, %(mode)s, %(provider)s, %(event)s,"
        " %(connection_id)s, %(label)s, %(params)s, %(every_s)s, now())",
        {**values, "params": Jsonb(values["params"])},
    )


async def get(on: Borrowed, workspace: str, mode: str, poll: str) -> Row | None:
    """Give one."""
    return await row(
        on,
        f"SELECT {_COLUMNS} FROM polls WHERE workspace_id = %s AND mode = %s AND id = %s",  # noqa: S608 - columns of ours
        (workspace, mode, poll),
    )


async def page(
    on: Borrowed, workspace: str, mode: str, provider: str | None, after: str, limit: int
) -> list[Row]:
    """List by id, from behind `after`."""
    return await rows(
        on,
        f"SELECT {_COLUMNS} FROM polls WHERE workspace_id = %s AND mode = %s"  # noqa: S608 - columns of ours
        " AND (%s::text IS NULL OR provider = %s) AND id > %s ORDER BY id LIMIT %s",
        (workspace, mode, provider, provider, after, limit),
    )


async def change(
    on: Borrowed, workspace: str, mode: str, poll: str, wish: Mapping[str, Any]
) -> int:
    """Change label, pace and whether it is paused; None: as it was.

    One that goes on looks at once, from where it stood.
    """
    return await run(
        on,
        "UPDATE polls SET label = coalesce(%(label)s, label),"
        " every_s = coalesce(%(every_s)s, every_s), next_at = CASE"
        " WHEN %(paused)s::boolean THEN NULL"
        " WHEN NOT %(paused)s::boolean THEN coalesce(next_at, now()) ELSE next_at END,"
        " updated_at = now()"
        " WHERE workspace_id = %(workspace)s AND mode = %(mode)s AND id = %(id)s",
        {**wish, "workspace": workspace, "mode": mode, "id": poll},
    )


async def look(on: Borrowed, workspace: str, mode: str, poll: str) -> int:
    """Let one that is not paused look now."""
    return await run(
        on,
        "UPDATE polls SET next_at = now() WHERE workspace_id = %s AND mode = %s AND id = %s"
        " AND next_at IS NOT NULL",
        (workspace, mode, poll),
    )


async def delete(on: Borrowed, workspace: str, mode: str, poll: str) -> int:
    """Delete one."""
    return await run(
        on,
        "DELETE FROM polls WHERE workspace_id = %s AND mode = %s AND id = %s",
        (workspace, mode, poll),
    )

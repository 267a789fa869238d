"""Rows of `workflows` and `workflow_versions`.

A version is first a `draft`, then `published` once the log has it, or `withdrawn` where it could
not be published; its number is never given again, so a number names one definition for ever.
`workflows.version` is the current one: 0 while none was published yet.
"""

from psycopg.types.json import Json

from control.store.query import Borrowed, Row, row, rows, run

_COLUMNS = (
    "w.id AS workflow_id, w.workspace_id, w.mode, w.name, w.status, w.version, w.created_at,"
    " w.updated_at"
)
_VISIBLE = "w.workspace_id = %(workspace)s AND w.mode = %(mode)s AND w.status = 'active'"


async def lock(on: Borrowed, workflow_id: str) -> None:
    """Wait until nobody else saves this workflow; held until `unlock`, across transactions."""
    await run(on, "SELECT pg_advisory_lock(hashtextextended(%s, 1))", (workflow_id,))


async def try_lock(on: Borrowed, workflow_id: str) -> bool:
    """Lock unless somebody saves this workflow right now."""
    sql = "SELECT pg_try_advisory_lock(hashtextextended(%s, 1)) AS got"
    found = await row(on, sql, (workflow_id,))
    return found is not None and bool(found["got"])


async def unlock(on: Borrowed, workflow_id: str) -> None:
    """Let the next one save."""
    await run(on, "SELECT pg_advisory_unlock(hashtextextended(%s, 1))", (workflow_id,))


async def count(on: Borrowed, workspace: str, mode: str) -> int:
    """Count the workflows of a mode, those that are being made included."""
    found = await row(
        on,
        "SELECT count(*) AS n FROM workflows"
        " WHERE workspace_id = %s AND mode = %s AND status = 'active'",
        (workspace, mode),
    )
    return int(found["n"]) if found else 0


async def insert(on: Borrowed, workspace: str, mode: str, workflow_id: str, name: str) -> None:
    """Add a workflow without a current version; harmless where it is there."""
    await run(
        on,
        "INSERT INTO workflows (id, workspace_id, mode, name, status, version)"
        " VALUES (%s, %s, %s, %s, 'active', 0) ON CONFLICT (id) DO NOTHING",
        (workflow_id, workspace, mode, name),
    )


async def insert_draft(on: Borrowed, workspace: str, workflow_id: str, definition: object) -> int:
    """Add a version with the next free number.

    Returns:
        The number.
    """
    found = await row(
        on,
        "INSERT INTO workflow_versions (workflow_id, version, workspace_id, definition, state)"
        " SELECT %(id)s, coalesce(max(version), 0) + 1, %(workspace)s, %(definition)s, 'draft'"
        " FROM workflow_versions WHERE workflow_id = %(id)s RETURNING version",
        {"id": workflow_id, "workspace": workspace, "definition": Json(definition)},
    )
    assert found is not None  # noqa: S101 - an aggregate always gives a row
    return int(found["version"])


async def publish(on: Borrowed, workflow_id: str, version: int, name: str) -> None:
    """Note that the log has this version: it is the current one, and older drafts are void."""
    await run(
        on,
        "UPDATE workflow_versions SET state = 'published' WHERE workflow_id = %s AND version = %s",
        (workflow_id, version),
    )
    await run(
        on,
        "UPDATE workflows SET version = %s, name = %s, updated_at = now() WHERE id = %s",
        (version, name, workflow_id),
    )
    await withdraw_drafts(on, workflow_id)


async def withdraw_drafts(on: Borrowed, workflow_id: str) -> None:
    """Note that no draft of this workflow will come into force."""
    await run(
        on,
        "UPDATE workflow_versions SET state = 'withdrawn'"
        " WHERE workflow_id = %s AND state = 'draft'",
        (workflow_id,),
    )


async def set_status(on: Borrowed, workflow_id: str, status: str) -> None:
    """Set `active`, `deleting` (the log does not know yet) or `deleted`."""
    await run(
        on,
        "UPDATE workflows SET status = %s, updated_at = now() WHERE id = %s",
        (status, workflow_id),
    )


async def get(on: Borrowed, workspace: str, mode: str, workflow_id: str) -> Row | None:
    """Give a workflow with its current definition."""
    return await row(
        on,
        f"SELECT {_COLUMNS}, v.definition FROM workflows w JOIN workflow_versions v"  # noqa: S608
        f" ON v.workflow_id = w.id AND v.version = w.version WHERE w.id = %(id)s AND {_VISIBLE}",
        {"id": workflow_id, "workspace": workspace, "mode": mode},
    )


async def exists(on: Borrowed, workspace: str, mode: str, workflow_id: str) -> bool:
    """Say whether a workflow can be seen, one that is about to get its first version included."""
    found = await row(
        on,
        f"SELECT 1 AS one FROM workflows w WHERE w.id = %(id)s AND {_VISIBLE}",  # noqa: S608
        {"id": workflow_id, "workspace": workspace, "mode": mode},
    )
    return found is not None


async def page(
    on: Borrowed, workspace: str, mode: str, after: tuple[int, str] | None, limit: int
) -> list[Row]:
    """List workflows with their definitions, newest first."""
    micros, identity = after or (None, None)
    return await rows(
        on,
        f"SELECT {_COLUMNS}, v.definition,"  # noqa: S608
        " (extract(epoch FROM w.created_at) * 1000000)::bigint AS sort_us"
        " FROM workflows w JOIN workflow_versions v"
        f" ON v.workflow_id = w.id AND v.version = w.version WHERE {_VISIBLE}"
        " AND (%(us)s::bigint IS NULL OR (w.created_at, w.id) <"
        " ('epoch'::timestamptz + %(us)s::bigint * interval '1 microsecond', %(after)s::text))"
        " ORDER BY w.created_at DESC, w.id DESC LIMIT %(limit)s",
        {"workspace": workspace, "mode": mode, "us": micros, "after": identity, "limit": limit},
    )


async def versions(
    on: Borrowed, workspace: str, workflow_id: str, before: int | None, limit: int
) -> list[Row]:
    """List published versions, newest first."""
    return await rows(
        on,
        "SELECT version, created_at, definition ->> 'name' AS name FROM workflow_versions"
        " WHERE workspace_id = %(workspace)s AND workflow_id = %(id)s AND state = 'published'"
        " AND (%(before)s::int IS NULL OR version < %(before)s::int)"
        " ORDER BY version DESC LIMIT %(limit)s",
        {"workspace": workspace, "id": workflow_id, "before": before, "limit": limit},
    )


async def version(on: Borrowed, workspace: str, workflow_id: str, number: int) -> Row | None:
    """Give one version, withdrawn ones too: an execution may have begun with it."""
    return await row(
        on,
        "SELECT version, created_at, definition, state FROM workflow_versions"
        " WHERE workspace_id = %s AND workflow_id = %s AND version = %s",
        (workspace, workflow_id, number),
    )


async def unsettled(on: Borrowed, limit: int) -> list[Row]:
    """List workflows whose saving or deleting is under way or was interrupted."""
    return await rows(
        on,
        f"SELECT {_COLUMNS} FROM workflows w WHERE w.status = 'deleting' OR w.id IN"  # noqa: S608
        " (SELECT workflow_id FROM workflow_versions WHERE state = 'draft')"
        " ORDER BY w.id LIMIT %s",
        (limit,),
    )


async def by_id(on: Borrowed, workflow_id: str) -> Row | None:
    """Give a workflow whatever its state, with its current definition if it has one."""
    return await row(
        on,
        f"SELECT {_COLUMNS}, v.definition FROM workflows w LEFT JOIN workflow_versions v"  # noqa: S608
        " ON v.workflow_id = w.id AND v.version = w.version WHERE w.id = %s",
        (workflow_id,),
    )


async def all_ids(on: Borrowed, after: str, limit: int) -> list[str]:
    """List every workflow of every workspace by id, for republishing."""
    found = await rows(
        on, "SELECT id FROM workflows WHERE id > %s ORDER BY id LIMIT %s", (after, limit)
    )
    return [item["id"] for item in found]


async def published(on: Borrowed, workflow_id: str) -> list[Row]:
    """List all published versions of a workflow with their definitions, oldest first."""
    return await rows(
        on,
        "SELECT version, definition, created_at FROM workflow_versions"
        " WHERE workflow_id = %s AND state = 'published' ORDER BY version",
        (workflow_id,),
    )

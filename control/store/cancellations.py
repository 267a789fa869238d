"""Finds the executions that a cancellation by filter means."""

from collections.abc import Mapping
from typing import Any

from control.store.executions import TERMINAL
from control.store.query import Borrowed, row, rows

_EQUAL = ("workflow_id", "user_id", "status")


async def unfinished(
    on: Borrowed, workspace: str, filters: Mapping[str, Any], limit: int
) -> tuple[list[str], int]:
    """Give executions that have no end yet, oldest first, and how many there are in all.

    Args:
        on: The connection.
        workspace: Whose.
        filters: mode; and workflow_id, user_id, status, since, until where not None.
        limit: How many ids at most.
    """
    conditions = [
        "workspace_id = %(workspace)s",
        "mode = %(mode)s",
        "started_at IS NOT NULL",
        "status <> ALL(%(terminal)s)",
    ]
    conditions += [f"{name} = %({name})s" for name in _EQUAL if filters.get(name) is not None]
    if filters.get("since") is not None:
        conditions.append("started_at >= %(since)s")
    if filters.get("until") is not None:
        conditions.append("started_at < %(until)s")
    where = " AND ".join(conditions)
    values = {**filters, "workspace": workspace, "terminal": list(TERMINAL), "limit": limit}
    counted = await row(on, f"SELECT count(*) AS n FROM executions WHERE {where}", values)  # noqa: S608
    found = await rows(
        on,
        f"SELECT id FROM executions WHERE {where}"  # noqa: S608
        " ORDER BY started_at, id LIMIT %(limit)s",
        values,
    )
    return [item["id"] for item in found], int(counted["n"]) if counted else 0

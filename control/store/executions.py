"""Reads `executions`, `steps`, `event_outcomes`, which the projector writes, and `parked_steps`."""

from collections.abc import Mapping, Sequence
from typing import Any

from control.store.query import Borrowed, Row, row, rows

TERMINAL = ("succeeded", "failed", "cancelled")
_COLUMNS = (
    "id AS execution_id, workflow_id, workflow_name, version, mode, user_id, status, error,"
    " event_id, generation, event_time, started_at, finished_at, replay_of, replay_id"
)


async def page(
    on: Borrowed,
    workspace: str,
    filters: Mapping[str, Any],
    after: tuple[int, str] | None,
    limit: int,
) -> list[Row]:
    """List executions, newest first.

    Args:
        on: The connection.
        workspace: Whose.
        filters: mode; and workflow_id, status, user_id, since, until where not None.
        after: Sort key of the last one shown.
        limit: How many at most.
    """
    micros, identity = after or (None, None)
    conditions = ["workspace_id = %(workspace)s", "started_at IS NOT NULL"]
    conditions += [
        f"{name} = %({name})s"
        for name in ("mode", "workflow_id", "status", "user_id")
        if filters.get(name) is not None
    ]
    if filters.get("since") is not None:
        conditions.append("started_at >= %(since)s")
    if filters.get("until") is not None:
        conditions.append("started_at < %(until)s")
    if after is not None:
        conditions.append(
            "(started_at, id) < ('epoch'::timestamptz + %(us)s::bigint * interval '1 microsecond',"
            " %(after)s)"
        )
    return await rows(
        on,
        f"SELECT {_COLUMNS}, (extract(epoch FROM started_at) * 1000000)::bigint AS sort_us"  # noqa: S608
        f" FROM executions WHERE {' AND '.join(conditions)}"
        " ORDER BY started_at DESC, id DESC LIMIT %(limit)s",
        {**filters, "workspace": workspace, "us": micros, "after": identity, "limit": limit},
    )


async def get(on: Borrowed, workspace: str, mode: str, execution_id: str) -> Row | None:
    """Give an execution."""
    return await row(
        on,
        f"SELECT {_COLUMNS}, event_partition, event_offset, outcome, started_place,"  # noqa: S608
        " finished_place FROM executions WHERE id = %s AND workspace_id = %s AND mode = %s",
        (execution_id, workspace, mode),
    )


async def steps(on: Borrowed, workspace: str, execution_id: str) -> list[Row]:
    """Give the steps that have a result, in the order they were asked for."""
    return await rows(
        on,
        "SELECT step_id, loop_index, provider, action, status, outcome, output, output_cut,"
        " vendor_id, error, attempts, request, response, connection_id, effect_key, command_place,"
        " result_place, requested_at, started_at, finished_at FROM steps"
        " WHERE execution_id = %s AND workspace_id = %s ORDER BY requested_at, step_id, loop_index",
        (execution_id, workspace),
    )


async def waiting(on: Borrowed, workspace: str, execution_id: str) -> list[Row]:
    """Give the steps that wait for a customer to connect again."""
    return await rows(
        on,
        "SELECT step_id, loop_index, provider, action, reason, message, connection_id, effect_key,"
        " requested_at, parked_at, deadline FROM parked_steps"
        " WHERE execution_id = %s AND workspace_id = %s ORDER BY id",
        (execution_id, workspace),
    )


async def pauses(on: Borrowed, workspace: str, execution_id: str) -> list[Row]:
    """Give the steps that wait for a time, an event or their next attempt."""
    return await rows(
        on,
        "SELECT step_id, loop_index, kind, detail, until_at, at FROM step_waits w"
        " WHERE execution_id = %s AND workspace_id = %s AND NOT EXISTS (SELECT FROM steps s"
        " WHERE s.execution_id = w.execution_id AND s.step_id = w.step_id"
        " AND s.loop_index = w.loop_index) ORDER BY at",
        (execution_id, workspace),
    )


async def drop_waiting(on: Borrowed, workspace: str, execution_ids: Sequence[str]) -> int:
    """Drop what waits of executions that were cancelled; say how many steps that were."""
    cursor = await on.execute(
        "DELETE FROM parked_steps WHERE execution_id = ANY(%s) AND workspace_id = %s",
        (list(execution_ids), workspace),
    )
    return cursor.rowcount


async def outcome_at(on: Borrowed, partition: int, offset: int) -> Row | None:
    """Give what became of one offset of the events topic."""
    return await row(
        on,
        "SELECT event_type, subject, outcome, reason, event_time, at FROM event_outcomes"
        ' WHERE partition = %s AND "offset" = %s',
        (partition, offset),
    )


async def outcomes(on: Borrowed, workspace: str, mode: str, event_id: str) -> list[Row]:
    """Give what became of an event: one row for each time it stands on the log, first one first."""
    return await rows(
        on,
        'SELECT partition, "offset", event_id, event_type, subject, mode, outcome, reason,'
        " executions, event_time, at FROM event_outcomes"
        " WHERE workspace_id = %s AND event_id = %s AND (mode IS NULL OR mode = %s)"
        ' ORDER BY event_time, partition, "offset" LIMIT 100',
        (workspace, event_id, mode),
    )


async def statuses(on: Borrowed, workspace: str, execution_ids: list[str]) -> dict[str, str]:
    """Give the status of each of these executions that is known."""
    found = await rows(
        on,
        "SELECT id, status FROM executions WHERE workspace_id = %s AND id = ANY(%s)",
        (workspace, execution_ids),
    )
    return {item["id"]: item["status"] for item in found}

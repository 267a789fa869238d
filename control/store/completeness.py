"""Reads what has an outcome and an end; keeps how far that was checked, and the open gaps."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from control.core.completeness import Interval, Ranges
from control.projections.rows import LOCK
from control.store.query import Borrowed, Row, row, rows, run
from schemas.events import Place

# Runs of offsets without an outcome: what lies between neighbours, and at both ends.
_MISSING: Final = """
    SELECT at + 1 AS first, next AS "end" FROM (
        SELECT "offset" AS at, lead("offset", 1, %(end)s) OVER (ORDER BY "offset") AS next
        FROM (
            SELECT %(first)s::bigint - 1 AS "offset"
            UNION ALL
            SELECT "offset" FROM event_outcomes
            WHERE partition = %(partition)s AND "offset" >= %(first)s AND "offset" < %(end)s
        ) known
    ) pairs WHERE next > at + 1 ORDER BY at LIMIT %(limit)s
"""
_RANGES: Final = """
    FROM unnest(%(partitions)s::int4[], %(firsts)s::int8[], %(ends)s::int8[]) r(p, first, "end")
    JOIN event_outcomes o ON o.partition = r.p AND o."offset" >= r.first AND o."offset" < r."end"
"""
_STARTED: Final = """
    CROSS JOIN unnest(o.executions) AS x(id)
    LEFT JOIN executions e ON e.id = x.id AND e.started_at IS NOT NULL
"""
_PARKED: Final = """
    LEFT JOIN LATERAL (
        SELECT reason FROM parked_steps p WHERE p.execution_id = x.id
        UNION ALL SELECT w.kind || ', ' || w.detail FROM step_waits w
        WHERE w.execution_id = x.id AND NOT EXISTS (
            SELECT FROM steps s WHERE s.execution_id = w.execution_id
            AND s.step_id = w.step_id AND s.loop_index = w.loop_index
        ) LIMIT 1
    ) parked ON true
"""
_OWN: Final = " WHERE (%(workspace)s::text IS NULL OR o.workspace_id = %(workspace)s)"


def _arguments(ranges: Ranges, workspace: str | None) -> dict[str, Any]:
    return {
        "partitions": list(ranges),
        "firsts": [first for first, _ in ranges.values()],
        "ends": [end for _, end in ranges.values()],
        "workspace": workspace,
    }


async def missing(on: Borrowed, partition: int, interval: Interval, limit: int) -> list[Interval]:
    """Give the runs of offsets that have no outcome, at most `limit` of them."""
    first, end = interval
    wanted = {"partition": partition, "first": first, "end": end, "limit": limit}
    found = await rows(on, _MISSING, wanted)
    return [(item["first"], item["end"]) for item in found]


async def outcomes(on: Borrowed, ranges: Ranges, workspace: str | None) -> dict[str, int]:
    """Count the outcomes of each kind."""
    found = await rows(
        on,
        f"SELECT o.outcome, count(*) AS n {_RANGES} {_OWN} GROUP BY 1",
        _arguments(ranges, workspace),
    )
    return {item["outcome"]: item["n"] for item in found}


async def ends(on: Borrowed, ranges: Ranges, workspace: str | None) -> dict[str, int]:
    """Count the executions that the events started, by status; `missing`: it never began."""
    found = await rows(
        on,
        "SELECT coalesce(e.status, 'missing') AS status, count(*) AS n"
        f" {_RANGES} {_STARTED} {_OWN} GROUP BY 1",
        _arguments(ranges, workspace),
    )
    return {item["status"]: item["n"] for item in found}


async def without_end(
    on: Borrowed, ranges: Ranges, workspace: str | None, before: datetime, limit: int
) -> list[Row]:
    """Give the executions without an end whose event had its outcome before this time."""
    return await rows(
        on,
        'SELECT o.partition, o."offset", o.workspace_id, o.event_id, x.id AS execution_id,'  # noqa: S608
        " e.status, e.started_at, parked.reason AS parked_for, (SELECT max(s.finished_at)"
        " FROM steps s WHERE s.workspace_id = e.workspace_id AND s.execution_id = e.id)"
        f" AS last_step_at {_RANGES} {_STARTED} {_PARKED} {_OWN}"
        " AND (e.id IS NULL OR e.status = 'running') AND o.at < %(before)s"
        ' ORDER BY o.partition, o."offset" LIMIT %(limit)s',
        _arguments(ranges, workspace) | {"before": before, "limit": limit},
    )


async def digest(on: Borrowed, ranges: Ranges, workspace: str) -> str:
    """Give SHA-256, hexadecimal, over a line for each outcome, by partition and offset.

    A line is `partition:offset:event id:outcome:executions, by commas`, and a line feed.
    """
    found = await row(
        on,
        "SELECT encode(sha256(convert_to(coalesce(string_agg(o.partition || ':' || o.\"offset\""
        " || ':' || coalesce(o.event_id, '') || ':' || o.outcome || ':' ||"
        " array_to_string(o.executions, ',') || E'\\n', '' ORDER BY o.partition, o.\"offset\"),"
        f" ''), 'UTF8')), 'hex') AS digest {_RANGES} {_OWN}",
        _arguments(ranges, workspace),
    )
    return str(found["digest"]) if found else ""


async def share_tables(on: Borrowed) -> bool:
    """Keep a rebuild of the read side away until the transaction ends; False: one is going on."""
    found = await row(on, "SELECT pg_try_advisory_xact_lock_shared(%s) AS ours", (LOCK,))
    return found is not None and bool(found["ours"])


async def positions(on: Borrowed) -> dict[int, int]:
    """Give up to where each partition was checked."""
    found = await rows(on, "SELECT partition, next_offset FROM completeness_positions")
    return {item["partition"]: item["next_offset"] for item in found}


async def move(on: Borrowed, checked: Mapping[int, int]) -> None:
    """Note up to where each partition was checked; never back."""
    await run(
        on,
        "INSERT INTO completeness_positions (partition, next_offset)"
        " SELECT * FROM unnest(%s::int4[], %s::int8[]) ON CONFLICT (partition) DO UPDATE SET"
        " next_offset = greatest(completeness_positions.next_offset, excluded.next_offset)",
        (list(checked), list(checked.values())),
    )


async def add_gaps(
    on: Borrowed, found: Sequence[tuple[Place, str | None, str | None, datetime]]
) -> None:
    """Note events without an outcome: place, workspace, event id, when it was accepted."""
    for place, workspace, event_id, accepted_at in found:
        await run(
            on,
            'INSERT INTO completeness_gaps (partition, "offset", workspace_id, event_id,'
            " accepted_at) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (place.partition, place.offset, workspace, event_id, accepted_at),
        )


async def close_gaps(on: Borrowed) -> int:
    """Forget the gaps that have an outcome by now."""
    return await run(
        on,
        "DELETE FROM completeness_gaps g USING event_outcomes o"
        ' WHERE o.partition = g.partition AND o."offset" = g."offset"',
    )


async def open_gaps(on: Borrowed) -> tuple[int, datetime | None]:
    """Count the open gaps; with the time of the oldest."""
    found = await row(on, "SELECT count(*) AS n, min(accepted_at) AS at FROM completeness_gaps")
    return (found["n"], found["at"]) if found else (0, None)


async def read_side_position(on: Borrowed, topic: str) -> dict[int, int]:
    """Give up to where the read side has read a topic."""
    found = await rows(
        on,
        "SELECT partition, next_offset FROM projection_offsets"
        " WHERE projection = 'executions' AND topic = %s",
        (topic,),
    )
    return {item["partition"]: item["next_offset"] for item in found}

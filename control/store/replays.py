"""Keeps replays and their items; finds what they run once more and what was recorded of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from control.store.query import Borrowed, Row, row, rows, run

_COLUMNS: Final = (
    "id AS replay_id, workspace_id, mode, kind, selection, version, from_step, rate_per_s, status,"
    " generation, total, error, created_by, created_at, finished_at, input"
)
_FOUND: Final = """
    SELECT e.id AS execution_id, e.event_partition, e.event_offset, e.event_time, e.id AS tie
    FROM executions e WHERE e.workspace_id = %(workspace)s AND e.mode = %(mode)s
    AND e.started_at IS NOT NULL
"""
_IN_OFFSETS: Final = """
    AND (%(partitions)s::int4[] IS NULL OR EXISTS (SELECT 1
        FROM unnest(%(partitions)s::int4[], %(firsts)s::int8[], %(ends)s::int8[]) r(p, first, "end")
        WHERE r.p = e.event_partition AND e.event_offset >= r.first AND e.event_offset < r."end"))
"""
_UNMATCHED: Final = """
    UNION ALL
    SELECT NULL, e.event_partition, e.event_offset, e.event_time, '' FROM (
        SELECT partition AS event_partition, "offset" AS event_offset, event_time
        FROM event_outcomes WHERE workspace_id = %(workspace)s AND outcome = 'no_match'
        AND (mode IS NULL OR mode = %(mode)s)
    ) e WHERE (%(since)s::timestamptz IS NULL OR e.event_time >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR e.event_time < %(until)s)
"""


async def insert(on: Borrowed, values: Mapping[str, Any]) -> None:
    """Keep a new replay."""
    await run(
        on,
        "INSERT INTO replays (id, workspace_id, mode, kind, selection, version, from_step, input,"
        " rate_per_s, status, total, confirmation, confirm_until, created_by) VALUES (%(id)s,"
        " %(workspace)s, %(mode)s, %(kind)s, %(selection)s, %(version)s, %(from_step)s, %(input)s,"
        " %(rate_per_s)s, %(status)s, 0, %(confirmation)s, %(confirm_until)s, %(by)s)",
        {**values, "selection": Jsonb(values["selection"])},
    )


async def fill(on: Borrowed, replay: str, wanted: Mapping[str, Any], limit: int) -> int:
    """Choose the items of a replay; gives how many there are, at most `limit`.

    Args:
        on: The connection.
        replay: Its id.
        wanted: workspace, mode; and execution_id, workflow_id, statuses, since, until, partitions
            with firsts and ends, unmatched: None or false where not asked for.
        limit: How many at most.
    """
    found = _FOUND
    if wanted["execution_id"] is not None:
        found += " AND e.id = %(execution_id)s"
    else:
        found += (
            " AND e.replay_of IS NULL AND e.status = ANY(%(statuses)s)"
            " AND (%(workflow_id)s::text IS NULL OR e.workflow_id = %(workflow_id)s)"
            " AND (%(since)s::timestamptz IS NULL OR e.event_time >= %(since)s)"
            " AND (%(until)s::timestamptz IS NULL OR e.event_time < %(until)s)"
        ) + _IN_OFFSETS
    if wanted["unmatched"]:
        found += _UNMATCHED + _IN_OFFSETS
    count = await run(
        on,
        "INSERT INTO replay_items (replay_id, sequence, execution_id, event_partition,"  # noqa: S608
        " event_offset) SELECT %(replay)s, row_number() OVER (ORDER BY event_time, event_partition,"
        f" event_offset, tie), execution_id, event_partition, event_offset FROM ({found}) f"
        " ORDER BY event_time, event_partition, event_offset, tie LIMIT %(limit)s",
        {**wanted, "replay": replay, "limit": limit},
    )
    await run(on, "UPDATE replays SET total = %s WHERE id = %s", (count, replay))
    return count


async def get(on: Borrowed, workspace: str, mode: str, replay: str) -> Row | None:
    """Give a replay."""
    return await row(
        on,
        f"SELECT {_COLUMNS}, confirmation, confirm_until FROM replays"  # noqa: S608
        " WHERE id = %s AND workspace_id = %s AND mode = %s",
        (replay, workspace, mode),
    )


async def page(
    on: Borrowed, workspace: str, mode: str, after: tuple[int, str] | None, limit: int
) -> list[Row]:
    """List replays, newest first."""
    micros, identity = after or (None, None)
    return await rows(
        on,
        f"SELECT {_COLUMNS}, (extract(epoch FROM created_at) * 1000000)::bigint AS sort_us"  # noqa: S608
        " FROM replays WHERE workspace_id = %(workspace)s AND mode = %(mode)s"
        " AND (%(us)s::bigint IS NULL OR (created_at, id) <"
        " ('epoch'::timestamptz + %(us)s::bigint * interval '1 microsecond', %(after)s::text))"
        " ORDER BY created_at DESC, id DESC LIMIT %(limit)s",
        {"workspace": workspace, "mode": mode, "us": micros, "after": identity, "limit": limit},
    )


async def counts(on: Borrowed, replay: str) -> dict[str, int]:
    """Count the items of each status."""
    found = await rows(
        on,
        "SELECT status, count(*) AS n FROM replay_items WHERE replay_id = %s GROUP BY 1",
        (replay,),
    )
    return {item["status"]: item["n"] for item in found}


async def executions(on: Borrowed, replay: str) -> dict[str, int]:
    """Count what was started, by status; `pending`: its start is not known here yet."""
    found = await rows(
        on,
        "SELECT coalesce(e.status, 'pending') AS status, count(*) AS n FROM replay_items i"
        " LEFT JOIN executions e ON e.id = i.new_execution_id"
        " WHERE i.replay_id = %s AND i.new_execution_id IS NOT NULL GROUP BY 1",
        (replay,),
    )
    return {item["status"]: item["n"] for item in found}


async def items(on: Borrowed, replay: str, after: int, limit: int) -> list[Row]:
    """List items in the order in which they are sent, after one of them."""
    return await rows(
        on,
        "SELECT i.sequence, i.execution_id, i.event_partition, i.event_offset, i.status, i.reason,"
        " i.new_execution_id, i.report, i.at, e.status AS execution_status FROM replay_items i"
        " LEFT JOIN executions e ON e.id = i.new_execution_id"
        " WHERE i.replay_id = %s AND i.sequence > %s ORDER BY i.sequence LIMIT %s",
        (replay, after, limit),
    )


async def set_status(
    on: Borrowed, replay: str, before: Sequence[str], status: str, error: object = None
) -> bool:
    """Change a replay's status, where it is one of those before; says whether it was."""
    touched = await run(
        on,
        "UPDATE replays SET status = %(status)s, error = coalesce(%(error)s, error),"
        " confirmation = NULL, lease_until = CASE WHEN %(status)s = 'running' THEN NULL"
        " ELSE lease_until END, finished_at = CASE WHEN %(status)s IN ('finished', 'cancelled',"
        " 'failed') THEN now() ELSE finished_at END WHERE id = %(id)s AND status = ANY(%(before)s)",
        {
            "id": replay,
            "status": status,
            "before": list(before),
            "error": None if error is None else Jsonb(error),
        },
    )
    return touched == 1


async def drop_pending(on: Borrowed, replay: str) -> None:
    """Give up the items that were not sent."""
    await run(
        on,
        "UPDATE replay_items SET status = 'cancelled' WHERE replay_id = %s AND status = 'pending'",
        (replay,),
    )


async def lease(on: Borrowed, owner: str, seconds: float) -> Row | None:
    """Take the oldest running replay that nobody works on."""
    return await row(
        on,
        "UPDATE replays SET lease_owner = %(owner)s,"  # noqa: S608
        " lease_until = now() + make_interval(secs => %(seconds)s) WHERE id = (SELECT id FROM"
        " replays WHERE status = 'running' AND (lease_until IS NULL OR lease_until < now())"
        f" ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING {_COLUMNS}",
        {"owner": owner, "seconds": seconds},
    )


async def keep(on: Borrowed, replay: str, owner: str, seconds: float) -> bool:
    """Go on working on a replay; False: it was paused, cancelled, or is another's by now."""
    touched = await run(
        on,
        "UPDATE replays SET lease_until = now() + make_interval(secs => %s)"
        " WHERE id = %s AND lease_owner = %s AND status = 'running'",
        (seconds, replay, owner),
    )
    return touched == 1


async def let_go(on: Borrowed, replay: str, owner: str) -> None:
    """Let somebody else go on at once."""
    await run(
        on,
        "UPDATE replays SET lease_until = NULL WHERE id = %s AND lease_owner = %s",
        (replay, owner),
    )


async def pending(on: Borrowed, replay: str, limit: int) -> list[Row]:
    """Give the next items."""
    return await rows(
        on,
        "SELECT sequence, execution_id, event_partition, event_offset FROM replay_items"
        " WHERE replay_id = %s AND status = 'pending' ORDER BY sequence LIMIT %s",
        (replay, limit),
    )


async def settle(on: Borrowed, replay: str, sequence: int, told: Mapping[str, Any]) -> None:
    """Note what became of an item: status, and reason, new_execution_id, place, report."""
    jsons = {n: None if told.get(n) is None else Jsonb(told[n]) for n in ("place", "report")}
    await run(
        on,
        "UPDATE replay_items SET status = %(status)s, reason = %(reason)s, at = now(),"
        " new_execution_id = %(new_execution_id)s, place = %(place)s, report = %(report)s"
        " WHERE replay_id = %(replay)s AND sequence = %(sequence)s AND status = 'pending'",
        {"reason": "", "new_execution_id": None}
        | dict(told)
        | jsons
        | {"replay": replay, "sequence": sequence},
    )


async def original(on: Borrowed, workspace: str, mode: str, execution: str) -> Row | None:
    """Give what is known of an execution that is to run once more."""
    return await row(
        on,
        "SELECT id, workflow_id, version, mode, user_id, status, event_id, event_partition,"
        " event_offset, generation, event_time, replay_of,"
        " coalesce(effect_version, version) AS effect_version,"
        " coalesce(effect_generation, generation) AS effect_generation"
        " FROM executions WHERE id = %s AND workspace_id = %s AND mode = %s"
        " AND started_at IS NOT NULL",
        (execution, workspace, mode),
    )


async def recordings(on: Borrowed, workspace: str, known: Row) -> list[Row]:
    """Give the results of an execution, and of those that share its effect keys."""
    return await rows(
        on,
        "SELECT s.step_id, s.loop_index, s.outcome, s.output, s.vendor_id, s.error, s.effect_key"
        " FROM executions e JOIN steps s ON s.workspace_id = e.workspace_id"
        " AND s.execution_id = e.id WHERE e.workspace_id = %(workspace)s"
        " AND (e.id = ANY(%(family)s) OR e.replay_of = ANY(%(family)s))"
        " AND coalesce(e.effect_version, e.version) = %(effect_version)s"
        " AND coalesce(e.effect_generation, e.generation) = %(effect_generation)s"
        " ORDER BY s.finished_at",
        {
            **known,
            "workspace": workspace,
            "family": [name for name in (known["id"], known["replay_of"]) if name],
        },
    )


async def effects(on: Borrowed, workspace: str, keys: Sequence[str]) -> dict[str, bytes]:
    """Give what the ledger has of effects that were carried out, by effect key."""
    found = await rows(
        on,
        "SELECT effect_key, result FROM effects WHERE effect_key = ANY(%s) AND workspace_id = %s"
        " AND status = 'done' AND result IS NOT NULL",
        (list(keys), workspace),
    )
    return {item["effect_key"]: bytes(item["result"]) for item in found}


async def reopen(
    on: Borrowed, workspace: str, failed: Sequence[str], unknown: Sequence[str]
) -> None:
    """Let effects be tried again: those that failed as new ones, those unknown as begun."""
    await run(
        on,
        "DELETE FROM effects WHERE effect_key = ANY(%s) AND workspace_id = %s AND status = 'done'",
        (list(failed), workspace),
    )
    await run(
        on,
        "UPDATE effects SET status = 'started', result = NULL, done_at = NULL"
        " WHERE effect_key = ANY(%s) AND workspace_id = %s AND status = 'done'",
        (list(unknown), workspace),
    )

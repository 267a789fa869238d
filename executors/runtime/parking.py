"""Lets steps wait whose connection the customer has to connect again.

    wait        a step whose connection is dead: its command goes into a table instead of failing
    must_wait   whether a step has to wait behind others of its order key that do

The command is kept as it stood in the log, and the record counts as handled only once the row is
committed: nothing is lost, nothing is marked as done. What ends the waiting is
`executors.runtime.releases`. A command that is sent on carries its row's id (`HEADER`), so that it
comes back to its place in the order where it has to wait again.
"""

import asyncio
import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog
from psycopg.types.json import Jsonb

from executors.core.result import Carried
from schemas.errors import DependencyDown
from schemas.events import RequestStep
from wire.bus import Stored
from wire.database import Pool, connection

HEADER: Final = "nhood_waited"
HOURS_DEFAULT: Final = 72
IN_ORDER: Final = "in_order"
_RETRY_S: Final = 0.5
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Why:
    """Why a step waits.

    Attributes:
        reason: needs_reauth or in_order.
        connection_id: What the customer has to connect again.
    """

    reason: str
    message: str
    connection_id: str


def why(carried: Carried) -> Why | None:
    """Say whether and why a step can wait, from how it ended."""
    dead = carried.dead_connection
    if dead is None:
        return None
    return Why("needs_reauth", carried.outcome.message, dead)


class Parking:
    """Writes commands down that wait; every method waits while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def wait(
        self, stored: Stored, command: RequestStep, lane: str | None, why: Why, *, forget: bool
    ) -> bool:
        """Let a step wait.

        Args:
            stored: Its command as it stands in the log.
            command: The same, read.
            lane: Of its order key; None: it has none.
            why: Why it waits.
            forget: Take it out of the ledger, where it stands as begun: nothing was done.

        Returns:
            False where it may not wait: its own deadline or the workspace's limit
            (`park_for_hours`) is over, or the execution is.
        """
        while True:
            try:
                return await self._wait(stored, command, lane, why, forget=forget)
            except DependencyDown as error:
                _log.warning("parking.unreachable", code=error.code)
                await asyncio.sleep(_RETRY_S)

    async def _wait(
        self, stored: Stored, command: RequestStep, lane: str | None, why: Why, *, forget: bool
    ) -> bool:
        headers = {name: base64.b64encode(v).decode() for name, v in stored.headers.items()}
        headers.pop(HEADER, None)
        place = stored.place
        requested_at = _time(command.requested_at_us)
        deadline = None if command.deadline_us is None else _time(command.deadline_us)
        async with connection(self._pool) as on:
            cursor = await on.execute(
                _WAIT,
                (
                    *(_waited_as(stored), command.effect_key, command.execution_id),
                    *(command.step_id, command.loop_index, command.mode, command.provider),
                    *(command.action, command.user, why.connection_id, lane, why.reason),
                    *(why.message, place.topic, place.partition, place.offset, stored.key),
                    *(stored.value, Jsonb(headers), requested_at),
                    *(deadline, requested_at, HOURS_DEFAULT),
                    *(command.workspace_id, command.execution_id),
                ),
            )
            waits = cursor.rowcount == 1
            if waits and forget:
                await on.execute(
                    "DELETE FROM effects WHERE effect_key = %s AND status <> 'done'",
                    (command.effect_key,),
                )
        return waits

    async def must_wait(self, stored: Stored, lane: str) -> Why | None:
        """Say whether a step has to wait behind others of its order key."""
        while True:
            try:
                return await self._must_wait(stored, lane)
            except DependencyDown as error:
                _log.warning("parking.unreachable", code=error.code)
                await asyncio.sleep(_RETRY_S)

    async def _must_wait(self, stored: Stored, lane: str) -> Why | None:
        mine = _waited_as(stored)
        async with connection(self._pool) as on:
            # One that was sent on goes behind those only that wait again.
            cursor = await on.execute(
                "SELECT step_id, execution_id, connection_id FROM parked_steps WHERE lane = %s"
                " AND (%s::bigint IS NULL OR (id < %s AND claimed_until IS NULL))"
                " ORDER BY id DESC LIMIT 1",
                (lane, mine, mine),
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        message = f"It waits behind the step {row[0]} of {row[1]}, which has the same order key."
        return Why(IN_ORDER, message, row[2])


_WAIT: Final = (
    "INSERT INTO parked_steps (id, effect_key, workspace_id, execution_id, step_id, loop_index,"
    " mode, provider, action, user_id, connection_id, lane, reason, message, topic, partition,"
    ' "offset", key, value, headers, requested_at, parked_at, deadline)'
    " SELECT coalesce(%s::bigint, nextval(pg_get_serial_sequence('parked_steps', 'id'))), %s, w.id,"
    " %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now(), t.deadline"
    " FROM workspaces w, LATERAL (SELECT least(%s, %s + make_interval(hours =>"
    " coalesce((w.settings->>'park_for_hours')::int, %s))) AS deadline) t"
    " WHERE w.id = %s AND t.deadline > now() AND NOT EXISTS (SELECT FROM executions x"
    " WHERE x.id = %s AND x.status <> 'running')"
    # It came again, or waits again before whoever sent it on has taken it out.
    " ON CONFLICT (effect_key) DO UPDATE SET claimed_until = NULL, parked_at = excluded.parked_at"
)


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1_000_000, UTC)


def _waited_as(stored: Stored) -> int | None:
    """Give the row's id that a command had when it waited before."""
    found = stored.headers.get(HEADER, b"")
    return int(found) if found.isdigit() else None

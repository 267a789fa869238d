"""Ends the waiting of steps: sends them on after a reconnection, fails them when the time is up.

    connection no longer dead ─▶ back onto their topic, in the order in which they came
    time is up                ─▶ a clear failure
    execution is over         ─▶ dropped

Any number of processes may: each claims rows for a while before it writes to Kafka and takes them
out after. One that dies in between lets others write them again, and the ledger of effects answers
what comes twice. Nothing is sent on while an earlier one of its order key is claimed or must wait.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from psycopg.rows import dict_row

from executors.core.result import from_record, record_of, refused
from executors.runtime.ledger import record
from executors.runtime.parking import HEADER
from executors.runtime.worker import result_record
from schemas import codec
from schemas.errors import NeighbourhoodError
from schemas.events import Place, RequestStep, StepFinished
from wire.bus import Publisher, Record, Stored
from wire.clock import now_us
from wire.database import Pool, connection

BATCH: Final = 200
# Longer than a record can take to be written to Kafka.
_CLAIM_S: Final = 120
_log = structlog.get_logger()

# Walks the index from one connection to the next instead of over all that waits.
_ALIVE: Final = """
    WITH RECURSIVE waited AS (
        (SELECT connection_id AS id FROM parked_steps ORDER BY connection_id LIMIT 1)
        UNION ALL
        SELECT (SELECT p.connection_id FROM parked_steps p WHERE p.connection_id > waited.id
                ORDER BY p.connection_id LIMIT 1)
        FROM waited WHERE waited.id IS NOT NULL
    )
    SELECT id FROM waited WHERE id IS NOT NULL AND NOT EXISTS
        (SELECT FROM connections c WHERE c.id = waited.id AND c.state = 'needs_reauth')
"""
_FREE: Final = "(p.claimed_until IS NULL OR p.claimed_until < now())"
_CLAIM: Final = """
    UPDATE parked_steps SET claimed_until = now() + make_interval(secs => %s)
    WHERE id = ANY(ARRAY({which} ORDER BY p.id LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING *, EXISTS (SELECT FROM executions x WHERE x.id = execution_id
                         AND x.status <> 'running') AS is_over
"""
_RELEASABLE: Final = f"""
    SELECT p.id FROM parked_steps p WHERE p.connection_id = ANY(%s) AND {_FREE}
    AND (p.lane IS NULL OR NOT EXISTS (SELECT FROM parked_steps e WHERE e.lane = p.lane
         AND e.id < p.id AND (e.claimed_until >= now() OR e.connection_id <> ALL(%s))))
"""  # noqa: S608 - constants
_EXPIRED: Final = f"SELECT p.id FROM parked_steps p WHERE p.deadline <= now() AND {_FREE}"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Waiting:
    """A claimed row."""

    id: int
    stored: Stored
    connection_id: str
    message: str
    parked_at: datetime
    claimed_until: datetime
    is_over: bool


class Releases:
    """Takes turns in ending the waiting; one a process."""

    def __init__(self, pool: Pool, publisher: Publisher) -> None:
        self._pool = pool
        self._publisher = publisher

    async def turn(self) -> bool:
        """Send on and fail up to a batch each; say whether there is more.

        Raises:
            DependencyDown: The database is away.
        """
        expired = await self._claim(_EXPIRED)
        for row in expired:
            await self._fail(row)
        released = await self._releasable()
        if released:
            await self._send_on(released)
        return BATCH in (len(expired), len(released))

    async def _releasable(self) -> list[Waiting]:
        async with connection(self._pool) as on:
            cursor = await on.execute(_ALIVE)
            alive = [row[0] for row in await cursor.fetchall()]
        return await self._claim(_RELEASABLE, alive, alive) if alive else []

    async def _claim(self, which: str, *values: object) -> list[Waiting]:
        async with connection(self._pool) as on, on.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_CLAIM.format(which=which), (_CLAIM_S, *values, BATCH))
            found = [_waiting(row) for row in await cursor.fetchall()]
        return sorted(found, key=lambda row: row.id)

    async def _send_on(self, rows: Sequence[Waiting]) -> None:
        going = [row for row in rows if not row.is_over]
        answers = await self._publisher.publish([_command_record(row) for row in going])
        gone = [row for row in rows if row.is_over]
        left: list[Waiting] = []
        for row, answer in zip(going, answers, strict=True):
            (left if isinstance(answer, NeighbourhoodError) else gone).append(row)
        await self._take_out(gone)
        await self._give_back(left)
        _log.info("parking.sent_on", steps=len(gone), not_sent=len(left))

    async def _fail(self, row: Waiting) -> None:
        if not row.is_over:
            command = codec.decode_as(RequestStep, row.stored.value)
            finished = await self._record(_too_late(row, command), command)
            (answer,) = await self._publisher.publish([result_record(finished, row.stored)])
            if isinstance(answer, NeighbourhoodError):
                _log.warning("parking.not_failed", id=row.id, code=answer.code)
                return
        await self._take_out([row])

    async def _record(self, finished: StepFinished, command: RequestStep) -> StepFinished:
        mine = record_of(finished)
        async with connection(self._pool) as on:
            # What was carried out all the same, by one that was sent on twice, stays.
            kept = await record(on, finished.workspace_id, finished.effect_key, mine)
        return finished if kept == mine else from_record(kept, command, finished.command)

    async def _give_back(self, rows: Sequence[Waiting]) -> None:
        async with connection(self._pool) as on:
            await on.execute(
                "UPDATE parked_steps SET claimed_until = NULL WHERE id = ANY(%s)",
                ([row.id for row in rows],),
            )

    async def _take_out(self, rows: Sequence[Waiting]) -> None:
        """Take rows out that are still ours: one that waits again is not."""
        async with connection(self._pool) as on, on.cursor() as cursor:
            await cursor.executemany(
                "DELETE FROM parked_steps WHERE id = %s AND claimed_until = %s",
                [(row.id, row.claimed_until) for row in rows],
            )


def _too_late(row: Waiting, command: RequestStep) -> StepFinished:
    message = (
        f"It waited since {row.parked_at:%Y-%m-%d %H:%M} UTC for the customer to connect again,"
        " longer than the workspace's park_for_hours or its own deadline allows."
        f" {row.message}"
    )
    return refused(command, row.stored.place, "waited_too_long", message, now_us())


def _command_record(row: Waiting) -> Record:
    headers = {**row.stored.headers, HEADER: str(row.id).encode()}
    return Record(row.stored.place.topic, row.stored.key, row.stored.value, list(headers.items()))


def _waiting(row: dict[str, Any]) -> Waiting:
    headers = {name: base64.b64decode(value) for name, value in row["headers"].items()}
    key = bytes(row["key"]) if row["key"] is not None else None
    place = Place(row["topic"], row["partition"], row["offset"])
    return Waiting(
        id=row["id"],
        stored=Stored(place, key, bytes(row["value"]), headers),
        connection_id=row["connection_id"],
        message=row["message"],
        parked_at=row["parked_at"],
        claimed_until=row["claimed_until"],
        is_over=row["is_over"],
    )

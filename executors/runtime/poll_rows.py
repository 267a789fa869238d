"""Rows of `polls` as the executors take them: leased when due, moved on, failed, begun anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from wire.database import Pool, connection

LEASE: Final = timedelta(minutes=5)
"""One that a process took and did not live to move on is taken again after it."""

ERROR_CHARS_MAX: Final = 500
_BACKOFF_S_MAX: Final = 3_600


@dataclass(frozen=True, slots=True)
class PollRow:
    """One poll that is due.

    Attributes:
        user: Whose connection it is.
        state: `executors.core.poll.State`; None: it has not looked yet.
        turn: How many looks there were.
        looked_at: When the last one went well.
    """

    id: str
    workspace_id: str
    mode: str
    provider: str
    event: str
    connection_id: str
    user: str
    params: Mapping[str, Any]
    every_s: int
    state: Mapping[str, Any] | None
    turn: int
    looked_at: datetime | None


class PollRows:
    """Keeps where each poll stands."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lease(self, providers: Sequence[str], limit: int) -> list[PollRow]:
        """Take what is due, so that no other process has it before the lease is over.

        Raises:
            DependencyDown: The database is away.
        """
        async with (
            connection(self._pool) as on,
            on.cursor(row_factory=class_row(PollRow)) as cursor,
        ):
            await cursor.execute(
                "UPDATE polls p SET next_at = now() + %s FROM connections c"
                " WHERE c.id = p.connection_id AND p.id IN ("
                " SELECT id FROM polls WHERE next_at <= now() AND provider = ANY(%s)"
                " ORDER BY next_at LIMIT %s FOR UPDATE SKIP LOCKED)"
                " RETURNING p.id, p.workspace_id, p.mode, p.provider, p.event, p.connection_id,"
                ' c.user_id AS "user", p.params, p.every_s, p.state, p.turn, p.looked_at',
                (LEASE, list(providers), limit),
            )
            return await cursor.fetchall()

    async def moved(
        self, row: PollRow, state: Mapping[str, Any], found: int, *, again: bool
    ) -> bool:
        """Note a look that went well; False where another process was first, or it is gone.

        Args:
            row: As it was leased.
            state: Where the next look begins.
            found: New items.
            again: There is more to be had at once.
        """
        return await self._write(
            row,
            "state = %(state)s, turn = turn + 1, looked_at = now(), found = found + %(found)s,"
            " failures = 0, error_code = NULL, error = NULL,"
            " missed_to = CASE WHEN missed_from IS NOT NULL AND missed_to IS NULL THEN now()"
            " ELSE missed_to END,"
            " next_at = CASE WHEN next_at IS NULL THEN NULL"
            " ELSE now() + make_interval(secs => %(pause)s) END",
            state=Jsonb(state),
            found=found,
            pause=0 if again else row.every_s,
        )

    async def failed(self, row: PollRow, code: str, why: str, wait_s: float | None) -> bool:
        """Note why a look failed; it is tried again after `every_s`, then less and less often.

        Args:
            row: As it was leased.
            code: Stable name.
            why: For people.
            wait_s: How long the vendor asks to wait, in seconds.
        """
        return await self._write(
            row,
            "failures = failures + 1, error_code = %(code)s, error = %(why)s,"
            " next_at = CASE WHEN next_at IS NULL THEN NULL ELSE now() + make_interval(secs =>"
            " greatest(%(wait)s, least(every_s * 2 ^ least(failures, 6), %(most)s))) END",
            code=code[:ERROR_CHARS_MAX],
            why=why[:ERROR_CHARS_MAX],
            wait=wait_s or 0,
            most=max(_BACKOFF_S_MAX, row.every_s),
        )

    async def restarted(self, row: PollRow) -> bool:
        """Begin anew, since the vendor does not know the place any more; say what is missed."""
        return await self._write(
            row,
            "state = NULL, turn = turn + 1, missed_from = %(since)s, missed_to = NULL,"
            " next_at = CASE WHEN next_at IS NULL THEN NULL ELSE now() END",
            since=row.looked_at,
        )

    async def _write(self, row: PollRow, what: str, **values: object) -> bool:
        async with connection(self._pool) as on:
            done = await on.execute(
                f"UPDATE polls SET {what} WHERE workspace_id = %(workspace)s AND id = %(id)s"  # noqa: S608 - texts of ours
                " AND turn = %(turn)s",
                {**values, "workspace": row.workspace_id, "id": row.id, "turn": row.turn},
            )
            return bool(done.rowcount)

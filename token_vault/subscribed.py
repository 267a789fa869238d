"""Rows of `webhook_endpoints` as subscriptions: made, due to be renewed, of a connection."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from token_vault.hooks import ROW, HookRow
from wire.database import Pool, connection

# A process that took a subscription to renew and died has let it lie for as long; one that the
# vendor did not renew is tried again after it.
AGAIN_AFTER: Final = timedelta(minutes=10)
ERROR_CHARS_MAX: Final = 500


class Subscribed:
    """Keeps what is subscribed to."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def made(
        self, row: HookRow, subscription: Mapping[str, Any], renew_at: datetime | None
    ) -> bool:
        """Note that the vendor made or renewed it; False where the address was deleted since."""
        async with connection(self._pool) as on:
            done = await on.execute(
                "UPDATE webhook_endpoints SET subscription = %s, renew_at = %s,"
                " renew_error = NULL, updated_at = now() WHERE workspace_id = %s AND id = %s",
                (Jsonb(subscription), renew_at, row.workspace_id, row.id),
            )
            return bool(done.rowcount)

    async def failed(self, row: HookRow, why: str) -> None:
        """Note why it could not be renewed; it is tried again."""
        async with connection(self._pool) as on:
            await on.execute(
                "UPDATE webhook_endpoints SET renew_error = %s WHERE workspace_id = %s AND id = %s",
                (why[:ERROR_CHARS_MAX], row.workspace_id, row.id),
            )

    async def lease_due(self, limit: int) -> Sequence[HookRow]:
        """Take what is due, so that no other process gets it before `AGAIN_AFTER`."""
        async with (
            connection(self._pool) as on,
            on.cursor(row_factory=class_row(HookRow)) as cursor,
        ):
            await cursor.execute(
                "UPDATE webhook_endpoints SET renew_at = now() + %s WHERE id IN ("  # noqa: S608 - columns of ours
                " SELECT id FROM webhook_endpoints WHERE renew_at <= now() ORDER BY renew_at"
                f" LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING {ROW}",
                (AGAIN_AFTER, limit),
            )
            return await cursor.fetchall()

    async def of_connection(self, workspace: str, connection_id: str) -> Sequence[HookRow]:
        """Give those that were made with a connection."""
        async with (
            connection(self._pool) as on,
            on.cursor(row_factory=class_row(HookRow)) as cursor,
        ):
            await cursor.execute(
                f"SELECT {ROW} FROM webhook_endpoints WHERE workspace_id = %s"  # noqa: S608 - columns of ours
                " AND connection_id = %s AND subscription IS NOT NULL",
                (workspace, connection_id),
            )
            return await cursor.fetchall()

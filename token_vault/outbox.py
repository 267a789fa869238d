"""Publishes changes of connections to `nhood.connections.v1` from the table that keeps them.

One process at a time, in the order of their ids: changes of one connection come in the order in
which they were made. A process that dies after publishing publishes them again; `event_id` tells.
"""

from typing import Any, Final

from psycopg.rows import dict_row

from schemas import codec
from schemas.events import ConnectionChanged, Envelope
from schemas.topics import CONNECTIONS
from token_vault.changes import micros
from wire.bus import Publisher, Record, publish_all
from wire.database import Pool, connection

BATCH: Final = 200
# Number of the advisory lock; any, but the same everywhere.
_LOCK: Final = 4_803_112_007
_SOURCE: Final = "/vault"


async def publish_some(pool: Pool, publisher: Publisher) -> bool:
    """Publish up to a batch; say whether there is more.

    Raises:
        DependencyDown: The database or Kafka is away; nothing is lost.
    """
    async with connection(pool) as on, on.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SELECT pg_try_advisory_xact_lock(%s) AS ours", (_LOCK,))
        lock = await cursor.fetchone()
        if lock is None or not lock["ours"]:
            return False
        await cursor.execute(
            "SELECT id, workspace_id, connection_id, mode, provider, user_id, label, before, after,"
            " reason, message, version, at FROM connection_events"
            " WHERE published_at IS NULL ORDER BY id LIMIT %s",
            (BATCH,),
        )
        rows = await cursor.fetchall()
        if rows:
            await publish_all(publisher, [_record(row) for row in rows])
            await cursor.execute(
                "UPDATE connection_events SET published_at = now() WHERE id = ANY(%s)",
                ([row["id"] for row in rows],),
            )
        return len(rows) == BATCH


def _record(row: dict[str, Any]) -> Record:
    at_us = micros(row["at"])
    changed = ConnectionChanged(
        event_id=row["id"],
        workspace_id=row["workspace_id"],
        connection_id=row["connection_id"],
        mode=row["mode"],
        provider=row["provider"],
        user=row["user_id"],
        label=row["label"],
        before=row["before"],
        after=row["after"],
        reason=row["reason"],
        message=row["message"],
        version=row["version"],
        at_us=at_us,
    )
    envelope = Envelope(
        f"connection-event-{row['id']}",
        "nhood.connection.changed",
        _SOURCE,
        row["workspace_id"],
        at_us,
        subject=row["connection_id"],
    )
    key = row["connection_id"].encode()
    return Record(CONNECTIONS, key, codec.encode(changed), envelope.headers())

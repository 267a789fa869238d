"""Which events came before: the first place of each delivery, for seven days at least, in Postgres.

    an id that was made for this event alone (`ce_minted`)   never looked up
    any other id                                             the first place that is written wins

It is asked when an event is read from the log, so after the broker acknowledged it (ADR 0018): an
event that never got onto the log leaves nothing behind and may be sent again. The first place stays
the first however often a router dies or two of them read the same, and an event that is read again
finds its own place and is handled again.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from time import monotonic

import psycopg
import structlog
from psycopg.rows import TupleRow

from router.core.match import body_value
from schemas.errors import CorruptEvent
from schemas.events import MINTED_HEADER, Place
from schemas.incoming import place_id, read_event
from schemas.lineage import origin
from schemas.settings import Secret
from wire.bus import Stored
from wire.rotation import BY_INDEX, EVERY_S, rotate

_log = structlog.get_logger()

WINDOW_DAYS = 7
_RETRY_S = 0.5
_NOTE = """
    INSERT INTO deliveries (key, "partition", "offset")
    SELECT news.key, news."partition", news."offset"
    FROM unnest(%s::bytea[], %s::int[], %s::bigint[]) AS news(key, "partition", "offset")
    WHERE NOT EXISTS (SELECT FROM deliveries WHERE deliveries.key = news.key)
    ON CONFLICT (key, slot) DO NOTHING RETURNING key
"""
_FIND = 'SELECT key, "partition", "offset" FROM deliveries WHERE key = ANY(%s)'


def key_of(stored: Stored) -> bytes | None:
    """Name the delivery that an event is; None where nothing can repeat it, or it is rejected."""
    if MINTED_HEADER in stored.headers:
        return None
    place = origin(stored.headers, stored.place)
    try:
        envelope, event = read_event(stored.value, stored.headers, place, stored.time_ms * 1000)
        body_value(event.data.data, event.data.content_type)
    except (CorruptEvent, ValueError):
        return None
    if envelope.generation or envelope.id == place_id(envelope.workspace, place):
        return None
    return delivery_key(envelope.workspace, event.mode, envelope.id)


def delivery_key(workspace: str, mode: str, event_id: str) -> bytes:
    """Name a delivery: 16 bytes. Nobody's ids are mixed up with another workspace's or mode's."""
    return hashlib.sha256("\x1f".join((workspace, mode, event_id)).encode()).digest()[:16]


class Deliveries:
    """Knows the first place of each delivery; waits while Postgres is away."""

    def __init__(self, database_url: Secret) -> None:
        self._url = database_url
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._rotate_at = 0.0

    async def first_places(self, found: Iterable[tuple[bytes, Place]]) -> dict[bytes, Place]:
        """Note deliveries that nobody noted before; give the first place of each.

        Args:
            found: Key and place of each event, in the order of the log.
        """
        first: dict[bytes, Place] = {}
        for key, place in found:
            first.setdefault(key, place)
        if not first:
            return first
        while True:
            try:
                return first | await self._noted(first)
            except psycopg.Error as error:
                _log.warning("deliveries.unreachable", error=type(error).__name__)
                await self.close()
                await asyncio.sleep(_RETRY_S)

    async def _noted(self, first: Mapping[bytes, Place]) -> dict[bytes, Place]:
        """Give the places of those that stood there before."""
        on = await self._connected()
        if monotonic() >= self._rotate_at:
            async with on.transaction():
                await rotate(on, "deliveries", WINDOW_DAYS)
            self._rotate_at = monotonic() + EVERY_S
        places = first.values()
        offsets = [place.offset for place in places]
        values = (list(first), [place.partition for place in places], offsets)
        noted = {bytes(row[0]) for row in await (await on.execute(_NOTE, values)).fetchall()}
        known = [key for key in first if key not in noted]
        if not known:
            return {}
        topic = next(iter(places)).topic
        rows = await (await on.execute(_FIND, (known,))).fetchall()
        return {bytes(key): Place(topic, partition, offset) for key, partition, offset in rows}

    async def _connected(self) -> psycopg.AsyncConnection[TupleRow]:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                self._url.reveal(),
                autocommit=True,
                application_name="nhood-deliveries",
                options=BY_INDEX,
            )
        return self._connection

    async def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


async def repeated(deliveries: Deliveries, batch: Iterable[Stored]) -> Mapping[Place, Place]:
    """Say which events repeat another one: place -> the place of the first.

    One that was sent again from the dead letters is where it stood first (`schemas.lineage`).
    """
    keyed = [(stored, key) for stored in batch if (key := key_of(stored)) is not None]
    if not keyed:
        return {}
    places = [(key, origin(stored.headers, stored.place)) for stored, key in keyed]
    first = await deliveries.first_places(places)
    return {
        stored.place: first[key]
        for (stored, _), (key, place) in zip(keyed, places, strict=True)
        if first[key] != place
    }

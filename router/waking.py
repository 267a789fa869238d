"""Follows the waits on the log and turns an event that somebody waits for into a result.

    nhood.waits.v1 ─▶ Waits (small) ─▶ an event fits ─▶ the wait's record, read again ─▶ result

Every router knows every wait, since an event may lie on any partition. A wait that is new is held
against the events of the last minute that this router handled.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from router.core.match import Definitions
from router.core.waits import Waiting, Waits, Wake
from router.intake import RETRY_S, publish_until_durable
from router.timers import Reader
from router.waiting import woken
from schemas import codec
from schemas.errors import CorruptEvent, DependencyDown
from schemas.events import EventWait
from wire.bus import Publisher, Record, Stored

_log = structlog.get_logger()


class Waking:
    """Keeps the waits and wakes them.

    Args:
        definitions: Every workflow version.
        publisher: Where to.
        reader: Reads a wait's record again.
        now_us: UTC, microseconds.
    """

    def __init__(
        self,
        definitions: Definitions,
        publisher: Publisher,
        reader: Reader,
        now_us: Callable[[], int],
    ) -> None:
        self.waits = Waits(definitions)
        self._publisher = publisher
        self._reader = reader
        self._now_us = now_us
        self._reading = asyncio.Lock()
        self._found: asyncio.Queue[list[Wake]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def on_record(self, stored: Stored) -> None:
        """Take in one record of the topic; runs on the tail's thread."""
        key = stored.key or b""
        waiting = None
        if stored.value is not None:
            try:
                wait = codec.decode_as(EventWait, stored.value)
            except CorruptEvent as error:
                _log.error("wait.unreadable", place=str(stored.place), code=error.code)
                return
            waiting = Waiting.of(key, stored.place, wait)
        # What is called so runs before whoever waits for the tail to catch up goes on.
        self._loop.call_soon_threadsafe(self._take_in, key, waiting)

    def _take_in(self, key: bytes, waiting: Waiting | None) -> None:
        if waiting is None:
            self.waits.end(key)
        elif wakes := self.waits.put(waiting):
            self._found.put_nowait(wakes)

    async def serve(self) -> None:
        """Publish the results of waits whose event came just before them, for ever."""
        while True:
            wakes = await self._found.get()
            await publish_until_durable(self._publisher, await self.results(wakes))

    async def results(self, wakes: Sequence[Wake]) -> list[Record]:
        """Build the results of the steps that are woken; a wait that has ended gives none."""
        if not wakes:
            return []
        found = await self._read([wake.waiting for wake in wakes])
        records = []
        for wake in wakes:
            stored = found.get(wake.waiting.key)
            if stored is None:
                continue
            record = woken(wake, codec.decode_as(EventWait, stored.value), self._now_us())
            if record is not None:
                records.append(record)
        return records

    async def _read(self, waiting: Sequence[Waiting]) -> dict[bytes, Stored]:
        places = [each.place for each in waiting]
        while True:
            try:
                async with self._reading:
                    found = await asyncio.to_thread(self._reader.read, places)
            except DependencyDown as error:
                _log.warning("kafka.unreachable", detail=error.detail or error.public)
                await asyncio.sleep(RETRY_S)
            else:
                return {stored.key or b"": stored for stored in found.values()}

"""Publishes records when their time has come: delays, timeouts, later tries, schedules.

    nhood.timers.v1 ─▶ Pending ─▶ due ─▶ its record is published ─▶ its tombstone

The topic is the state: a router reads the partitions that it is assigned from their beginning and
holds a key, a time and a place for each timer. A crash between the two writes publishes a record
once more, which does no harm: whoever takes it knows it by its id. Times are those of the wall
clock; when it jumps, what is due then is published then.

A timer's key names what it is for. Who sets it again under the same key means the same thing:
the end of the first may come after the second was set.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from msgspec import Struct

from router.core.pending import Due, Pending
from router.intake import RETRY_S, publish_until_durable
from schemas import codec
from schemas.errors import CorruptEvent, DependencyDown
from schemas.events import Place, Timer
from schemas.topics import TIMERS
from wire.bus import Publisher, Record, Stored
from wire.due import DUE_HEADER
from wire.telemetry import TIMERS_LATE, TIMERS_PENDING

_log = structlog.get_logger()

GROUP = "nhood-router-timers"
BATCH_MAX = 200  # timers published between two waits for the broker
LOOK_S = 1.0  # between two looks at the wall clock, which may jump; nobody looks when nothing waits
KEPT_BYTES_MAX = 32 * 1024 * 1024  # of timers' records held in memory; others are read again
KEPT_FOR_US = 600_000_000  # only what is due within ten minutes is worth it


class Row(Struct, frozen=True):
    """What is taken from a record of the topic; `due_us` is None for a tombstone."""

    stored: Stored
    due_us: int | None


class Reader(Protocol):
    """Reads records again (`wire.places.PlaceReader`)."""

    def read(self, places: Sequence[Place]) -> dict[Place, Stored]:
        """Give what still stands there; blocks."""
        ...


class Special(Protocol):
    """Knows what to do with timers that name no topic (`router.schedules`)."""

    def on_due(self, key: bytes, timer: Timer) -> tuple[list[Record], Record]:
        """Give the records that it leads to, and what then becomes of the timer itself."""
        ...

    def on_whole(self, partition: int, partitions: int) -> None:
        """Note that a partition is ours and known to its end."""
        ...


def read_row(stored: Stored) -> Row:
    """Take a record of the topic in."""
    if stored.value is None:
        return Row(stored, None)
    told = stored.headers.get(DUE_HEADER, b"")
    if told.isdigit():
        return Row(stored, int(told))
    try:
        return Row(stored, codec.decode_as(Timer, stored.value).due_us)
    except CorruptEvent as error:
        _log.error("timer.unreadable", place=str(stored.place), code=error.code)
        return Row(stored, None)


class Timers:
    """Holds the timers of this router's partitions and publishes them.

    Args:
        publisher: Where to.
        reader: Reads a timer's record again.
        now_us: The wall clock: UTC, microseconds.
    """

    def __init__(self, publisher: Publisher, reader: Reader, now_us: Callable[[], int]) -> None:
        self._publisher = publisher
        self._reader = reader
        self._now_us = now_us
        self._special: Special | None = None
        self._kept: dict[Place, Stored] = {}
        self._kept_bytes = 0
        self._changed = asyncio.Event()
        self.pending = Pending()

    def use(self, special: Special) -> None:
        """Give timers without a topic to somebody."""
        self._special = special

    def on_rows(self, rows: Sequence[Row]) -> None:
        """Take in what the topic says."""
        for row in rows:
            place, key = row.stored.place, row.stored.key or b""
            before = self.pending.live(place.partition, key)
            if before is not None:
                self._drop(before)
            if row.due_us is None:
                self.pending.end(place.partition, key)
                continue
            self.pending.put(Due(row.due_us, place.partition, place.offset, key))
            size = len(row.stored.value or b"")
            soon = row.due_us - self._now_us() < KEPT_FOR_US
            if soon and self._kept_bytes + size <= KEPT_BYTES_MAX:
                self._kept[place] = row.stored
                self._kept_bytes += size
        TIMERS_PENDING.set(len(self.pending))
        self._changed.set()

    def on_whole(self, partition: int, partitions: int) -> None:
        """Note that a partition was read to its end: what is due in it may be published."""
        if self.pending.read_whole(partition):
            if self._special is not None:
                self._special.on_whole(partition, partitions)
            self._changed.set()

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Drop partitions that another router has now."""
        self.pending.forget(partitions)
        for place in [place for place in self._kept if place.partition in partitions]:
            self._kept_bytes -= len(self._kept.pop(place).value or b"")

    async def serve(self) -> None:
        """Publish what is due, for ever."""
        while True:
            taken = self.pending.take(self._now_us(), BATCH_MAX)
            if taken:
                await self._fire(taken)
            else:
                await self._until_changed()

    async def _until_changed(self) -> None:
        """Wait until the next timer is due, a record comes, or the clock may have jumped."""
        self._changed.clear()
        following = self.pending.next_us()
        wait = None if following is None else (following - self._now_us()) / 1_000_000
        try:
            await asyncio.wait_for(
                self._changed.wait(), None if wait is None else max(0.0, min(wait, LOOK_S))
            )
        except TimeoutError:
            return

    async def _fire(self, taken: Sequence[Due]) -> None:
        records: list[Record] = []
        ends: list[Record] = []
        found = await self._records(taken)
        for due, stored in zip(taken, found, strict=True):
            if stored is None:
                continue  # a later record of this key took its place; it is on its way to us
            self._lead_on(due, stored, records, ends)
        await publish_until_durable(self._publisher, records)
        await publish_until_durable(self._publisher, ends)

    def _lead_on(self, due: Due, stored: Stored, records: list[Record], ends: list[Record]) -> None:
        TIMERS_LATE.observe(max(0, self._now_us() - due.due_us) / 1_000_000)
        try:
            timer = codec.decode_as(Timer, stored.value)
        except CorruptEvent as error:
            _log.error("timer.unreadable", place=str(stored.place), code=error.code)
            return
        if timer.topic:
            records.append(Record(timer.topic, timer.key, timer.value, list(timer.headers.items())))
        elif self._special is not None:
            led_to, following = self._special.on_due(due.key, timer)
            records.extend(led_to)
            ends.append(following)
            return
        if self.pending.live(due.partition, due.key) is None:  # nobody set it anew meanwhile
            ends.append(Record(TIMERS, due.key, None, partition=due.partition))

    async def _records(self, taken: Sequence[Due]) -> list[Stored | None]:
        """Give the record of each; from memory, or read again."""
        places = [Place(TIMERS, due.partition, due.offset) for due in taken]
        found = {place: stored for place in places if (stored := self._kept.get(place))}
        for due in taken:
            self._drop(due)
        missing = [place for place in places if place not in found]
        while missing:
            try:
                found |= await asyncio.to_thread(functools.partial(self._reader.read, missing))
            except DependencyDown as error:
                _log.warning("kafka.unreachable", detail=error.detail or error.public)
                await asyncio.sleep(RETRY_S)
            else:
                break
        return [found.get(place) for place in places]

    def _drop(self, due: Due) -> None:
        kept = self._kept.pop(Place(TIMERS, due.partition, due.offset), None)
        if kept is not None:
            self._kept_bytes -= len(kept.value or b"")

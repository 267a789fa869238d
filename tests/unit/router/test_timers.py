"""Timers against a log in memory: what is due is published, then ended, and survives a crash."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

import router.timers
from router.timers import Timers, read_row
from schemas.errors import NeighbourhoodError
from schemas.events import Place
from schemas.topics import RESULTS, TIMERS
from wire.bus import MemoryBus, Record, Stored
from wire.due import end_of, publish_at

WS = "ws_00000000000000000000000000"
START = 1_790_000_000_000_000
DEADLINE_S = 10


class World:
    """A log, a clock that stands until it is moved, and a router's timers that read the log."""

    def __init__(self) -> None:
        self.bus = MemoryBus({TIMERS: 2, RESULTS: 1})
        self.now = START
        self.read_again: list[Place] = []
        self.refuse = False
        self.restart()

    def restart(self) -> None:
        """Begin with nothing but the log."""
        self.timers = Timers(self, self, lambda: self.now)
        self._read = [0, 0]
        self.follow()

    def follow(self) -> None:
        """Hand on what is new on the log, as the consumer would."""
        for partition in (0, 1):
            log = self.bus._logs[TIMERS, partition]
            rows = [read_row(stored) for stored in log[self._read[partition] :]]
            self._read[partition] = len(log)
            self.timers.on_rows(rows)
            self.timers.on_whole(partition, 2)

    async def publish(self, records: Sequence[Record]) -> list[Place | NeighbourhoodError]:
        if self.refuse and any(record.topic == TIMERS for record in records):
            raise ConnectionError("killed before the tombstone")
        answers = await self.bus.publish(records)
        self.follow()
        return answers

    def read(self, places: Sequence[Place]) -> dict[Place, Stored]:
        self.read_again.extend(places)
        return {place: self.bus._logs[TIMERS, place.partition][place.offset] for place in places}

    async def set(self, key: str, after_us: int, value: bytes = b"v") -> None:
        record = Record(RESULTS, key.encode(), value, [("h", b"1")])
        await self.publish([publish_at(START + after_us, record, key, WS, self.now)])

    @property
    def published(self) -> list[bytes | None]:
        return [stored.key for stored in self.bus._logs[RESULTS, 0]]


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not look():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


def served(test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World()
        task = asyncio.create_task(world.timers.serve())
        try:
            await test(world)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_record_is_published_as_it_was_given_and_its_timer_ended():
    async def test(world: World) -> None:
        await world.set("a", 0, b"payload")
        await until(lambda: world.published)
        await until(lambda: len(world.timers.pending) == 0)
        (stored,) = world.bus._logs[RESULTS, 0]
        assert (stored.key, stored.value, stored.headers) == (b"a", b"payload", {"h": b"1"})
        logs = [s for partition in (0, 1) for s in world.bus._logs[TIMERS, partition]]
        assert [s.value is None for s in logs if s.key == b"a"] == [False, True]

    served(test)


def test_clock_that_jumps_forward_publishes_what_became_due(monkeypatch):
    monkeypatch.setattr(router.timers, "LOOK_S", 0.001)

    async def test(world: World) -> None:
        await world.set("b", 20)
        await world.set("a", 10)
        await world.set("later", 1_000_000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert world.published == []
        world.now = START + 20
        await until(lambda: len(world.published) == 2)
        assert world.published == [b"a", b"b"]
        world.now = START - 5_000_000
        for _ in range(50):
            await asyncio.sleep(0)
        assert world.published == [b"a", b"b"]

    served(test)


def test_timer_that_was_ended_is_never_published(monkeypatch):
    monkeypatch.setattr(router.timers, "LOOK_S", 0.001)

    async def test(world: World) -> None:
        await world.set("a", 10)
        await world.set("b", 20)
        await world.publish([end_of("a")])
        world.now = START + 99
        await until(lambda: world.published)
        assert world.published == [b"b"]

    served(test)


def test_record_that_was_not_kept_is_read_again(monkeypatch):
    monkeypatch.setattr(router.timers, "KEPT_BYTES_MAX", 300)
    monkeypatch.setattr(router.timers, "LOOK_S", 0.001)

    async def test(world: World) -> None:
        await world.set("small", 10)
        await world.set("large", 11, b"x" * 500_000)
        assert world.timers._kept_bytes <= 300
        world.now = START + 99
        await until(lambda: len(world.published) == 2)
        assert len(world.read_again) == 1
        assert world.bus._logs[RESULTS, 0][1].value == b"x" * 500_000
        assert world.timers._kept_bytes == 0

    served(test)


def test_router_killed_between_the_record_and_its_tombstone_publishes_it_again():
    async def run() -> None:
        world = World()
        await world.set("a", 0)
        world.refuse = True
        with pytest.raises(ConnectionError):
            await world.timers.serve()
        assert world.published == [b"a"]
        world.refuse = False
        world.restart()
        task = asyncio.create_task(world.timers.serve())
        await until(lambda: len(world.published) == 2)
        await until(lambda: len(world.timers.pending) == 0)
        task.cancel()
        world.restart()
        assert len(world.timers.pending) == 0

    asyncio.run(run())


def test_nothing_is_looked_at_while_nothing_waits():
    async def test(world: World) -> None:
        looks = 0

        def now() -> int:
            nonlocal looks
            looks += 1
            return START

        world.timers._now_us = now
        for _ in range(200):
            await asyncio.sleep(0)
        assert looks <= 2

    served(test)

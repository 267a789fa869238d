"""Schedules over a log in memory: one event for each time, over restarts and changes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import orjson

from router.core.match import Definitions
from router.schedules import Schedules
from schemas import codec
from schemas.errors import NeighbourhoodError
from schemas.events import Event, Place, WorkflowVersion, parse_rfc3339
from schemas.topics import EVENTS, RESULTS, TIMERS
from tests.unit.router import test_timers
from tests.unit.router.test_timers import START, WS, until
from wire.bus import MemoryBus, Record

SECOND = 1_000_000


class World(test_timers.World):
    """Timers and schedules of one router, over a log."""

    def __init__(self) -> None:
        self.bus = MemoryBus({TIMERS: 2, RESULTS: 1, EVENTS: 1})
        self.definitions = Definitions()
        self.now = START
        self.read_again: list[Place] = []
        self.refuse = False
        self.tasks: list[asyncio.Task[None]] = []
        self.restart()

    def restart(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.timers = test_timers.Timers(self, self, lambda: self.now)
        self.schedules = Schedules(self.definitions, self.timers, self, lambda: self.now)
        self.timers.use(self.schedules)
        self._read = [0, 0]
        self.follow()
        served = (self.timers.serve(), self.schedules.serve())
        self.tasks = [asyncio.ensure_future(each) for each in served]

    def save(self, cron: str, status: str = "active", version: int = 1, **more: object) -> None:
        definition = {
            "name": "W",
            "trigger": {"type": "schedule", "cron": cron, **more},
            "steps": [{"type": "delay", "duration": 1}],
        }
        record = WorkflowVersion(
            WS, "wf_1", version, "test", "W", status, orjson.dumps(definition), self.now
        )
        self.definitions.put("wf_1", record)
        self.schedules.on_definition("wf_1")

    async def publish(self, records: Sequence[Record]) -> list[Place | NeighbourhoodError]:
        return await super().publish(records)

    async def settle(self) -> None:
        """Let everything run that can run; the timers look when a record comes."""
        self.timers._changed.set()
        for _ in range(100):
            await asyncio.sleep(0)

    @property
    def ticks(self) -> list[int]:
        """Seconds after the start of each event, in the order of the log."""
        return [
            (codec_time(stored.value) - START) // SECOND for stored in self.bus._logs[EVENTS, 0]
        ]

    @property
    def ids(self) -> list[bytes | None]:
        return [stored.key for stored in self.bus._logs[EVENTS, 0]]


def codec_time(value: bytes | None) -> int:
    body = orjson.loads(codec.decode_as(Event, value).data.data)
    return parse_rfc3339(body["scheduled_at"])


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def running() -> None:
        world = World()
        try:
            await test(world)
        finally:
            for task in world.tasks:
                task.cancel()
            await asyncio.gather(*world.tasks, return_exceptions=True)

    asyncio.run(running())


def test_each_time_gives_one_event():
    async def test(world: World) -> None:
        world.save("* * * * * *")
        for _ in range(5):
            await world.settle()
            world.now += SECOND
        await world.settle()
        assert world.ticks == [1, 2, 3, 4, 5]
        assert len(set(world.ids)) == 5

    run(test)


def test_restart_makes_up_for_missed_times_and_repeats_none():
    async def test(world: World) -> None:
        world.save("*/10 * * * * *", catch_up="all")
        await world.settle()
        world.now += 10 * SECOND
        await world.settle()
        for task in world.tasks:
            task.cancel()
        world.now += 45 * SECOND
        world.restart()
        await world.settle()
        world.now += 10 * SECOND
        await world.settle()
        found = world.ticks
        assert found == list(range(found[0], found[-1] + 10, 10))
        assert len(found) == 6
        assert len(set(world.ids)) == len(found)

    run(test)


def test_killed_between_event_and_next_timer_repeats_the_same_id():
    async def test(world: World) -> None:
        world.save("* * * * * *")
        await world.settle()
        world.refuse = True
        world.now += SECOND
        await world.settle()
        assert len(world.ids) == 1
        world.refuse = False
        world.restart()
        await until(lambda: len(world.ids) == 2)
        assert len(set(world.ids)) == 1

    run(test)


def test_changed_schedule_takes_the_place_of_the_old_one():
    async def test(world: World) -> None:
        world.save("0 0 1 1 *")
        await world.settle()
        world.save("* * * * * *", version=2)
        await world.settle()
        world.now += SECOND
        await world.settle()
        assert world.ticks == [1]

    run(test)


def test_deleted_workflow_gives_no_event():
    async def test(world: World) -> None:
        world.save("* * * * * *")
        await world.settle()
        assert len(world.timers.pending) == 1
        world.save("* * * * * *", status="deleted")
        await world.settle()
        assert len(world.timers.pending) == 0
        world.now += 5 * SECOND
        await world.settle()
        assert world.ticks == []

    run(test)

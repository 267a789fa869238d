"""Dispatch over a log in memory: turns, room, what is put off, and orders."""

import asyncio
from dataclasses import dataclass, field

import pytest

from executors.core.room import Room
from executors.runtime.dispatch import Dispatch, Turn
from schemas.errors import DependencyDown
from schemas.events import Place
from schemas.quotas import PLANS
from wire.bus import Stored
from wire.consumer import Assignment, Taken


@dataclass
class Job:
    taken: Taken
    customer: str | None
    is_ordered: bool

    @property
    def number(self) -> int:
        return self.taken.stored.place.offset


def read(taken: Taken) -> Job:
    parts = (taken.stored.key or b"").decode().split("/")
    user = parts[1] if len(parts) > 1 and parts[1] != "-" else None
    return Job(taken, user, len(parts) > 2)


@dataclass
class Log:
    """A partition, its consumer, and who reads it again."""

    records: list[Stored] = field(default_factory=list)
    assignment: Assignment = field(default_factory=Assignment)
    put: int = 0
    reads: int = 0
    gone: set[int] = field(default_factory=set)
    given_up: list[int] = field(default_factory=list)
    away: int = 0

    def taken(self, *keys: str) -> list[Taken]:
        found = []
        for key in keys:
            place = Place("steps", 0, len(self.records))
            self.records.append(Stored(place, key.encode(), b"x" * 100))
            found.append(Taken(self.records[-1], self.assignment, 0.0))
        return found

    def put_off(self, taken: Taken) -> None:
        self.put += 1

    def take_again(self, record: Stored, assignment: Assignment) -> Taken | None:
        if not assignment.ours:
            return None
        self.put -= 1
        return Taken(record, assignment, 0.0)

    def give_up(self, assignment: Assignment, offset: int) -> None:
        self.put -= 1
        self.given_up.append(offset)

    async def read(self, topic: str, partition: int, offsets: list[int]) -> list[Stored]:
        await asyncio.sleep(0)
        self.reads += 1
        if self.away:
            self.away -= 1
            raise DependencyDown("away")
        assert offsets == sorted(offsets)
        assert self.assignment.ours, "another member's by now"
        return [self.records[offset] for offset in offsets if offset not in self.gone]


class Bench:
    """A dispatch whose steps end when they are told to."""

    def __init__(self, turns: int = 8, records_max: int = 40, plan: str = "enterprise") -> None:
        self.log = Log()
        self.begun: list[str] = []
        self.order: list[int] = []
        self.free = asyncio.Event()
        self.dispatch: Dispatch[Job] = Dispatch(
            turns, read, self.work, lambda: self.log, self.log, lambda _: PLANS[plan]
        )
        self.dispatch._room = Room(records_max)

    async def work(self, job: Job, turn: Turn) -> None:
        self.begun.append((job.taken.stored.key or b"").decode())
        self.order.append(job.number)
        await self.free.wait()

    def add(self, *keys: str) -> None:
        self.dispatch.deliver(self.log.taken(*keys))


@pytest.fixture
async def make():
    made: list[Bench] = []

    def build(**how) -> Bench:
        made.append(Bench(**how))
        return made[-1]

    yield build
    for bench in made:
        await bench.dispatch.stop(0.01)


async def until(holds, what: str) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - it may hold after any step of the loop
            await asyncio.sleep(0)
    assert holds(), what


async def test_small_workspace_behind_a_greedy_one_begins_at_once(make):
    bench = make(turns=8, records_max=40)
    bench.add(*["greedy/u"] * 1_000, "small/u")
    await until(lambda: "small/u" in bench.begun, "the small one's step")
    assert bench.dispatch.put_off > 900
    assert bench.log.put == bench.dispatch.put_off


async def test_all_that_was_put_off_is_done_in_its_order_and_read_in_large_parts(make):
    bench = make(records_max=200)
    bench.free.set()
    bench.add(*["greedy/u/key"] * 1_000)
    await until(lambda: len(bench.order) == 1_000, "all of them")
    assert bench.order == list(range(1_000))
    assert (bench.log.put, bench.dispatch.put_off) == (0, 0)
    assert bench.log.reads < 60
    await until(lambda: bench.dispatch._room == Room(200), "an empty room")


async def test_records_that_come_meanwhile_queue_behind_those_put_off(make):
    bench = make(records_max=40)
    bench.add(*["t/u/key"] * 100)
    await until(lambda: bench.begun, "the first")
    bench.free.set()
    for _ in range(50):
        bench.add("t/u/key", "t/u/key")
        await asyncio.sleep(0)
    await until(lambda: len(bench.order) == 200, "all of them")
    assert bench.order == sorted(bench.order)


async def test_ordered_steps_run_one_by_one_and_others_side_by_side(make):
    bench = make()
    bench.add(*["t/u/key"] * 3, *["t/u"] * 3)
    await until(lambda: len(bench.begun) == 4, "four")
    assert bench.begun.count("t/u/key") == 1


async def test_kafka_that_is_away_is_asked_again(make, monkeypatch):
    monkeypatch.setattr("executors.runtime.dispatch._RETRY_S", 0)
    bench = make(records_max=40)
    bench.log.away = 3
    bench.free.set()
    bench.add(*["t/u"] * 200)
    await until(lambda: len(bench.order) == 200, "all of them")


async def test_record_that_retention_deleted_does_not_stop_the_rest(make):
    bench = make(records_max=40)
    bench.log.gone = {100, 101}
    bench.free.set()
    bench.add(*["t/u"] * 200)
    await until(lambda: len(bench.order) == 198, "all but two")
    assert bench.log.given_up == [100, 101]
    assert bench.log.put == 0


async def test_what_was_put_off_of_a_partition_that_went_is_forgotten(make):
    bench = make(records_max=40)
    bench.add(*["t/u"] * 200)
    await until(lambda: bench.begun, "the first")
    bench.log.assignment.ours = False
    bench.log.assignment = Assignment()
    bench.free.set()
    bench.add("t/u")
    await until(lambda: 200 in bench.order, "the new one")
    await until(lambda: bench.dispatch.put_off == 0, "nothing put off")
    assert bench.log.reads <= 1  # the new one, which had no room at first


async def test_waiting_step_gives_its_turn_to_others(make):
    bench = make(turns=1)
    waits = asyncio.Event()
    done: list[str] = []

    async def work(job: Job, turn: Turn) -> None:
        name = (job.taken.stored.key or b"").decode()
        if name == "t/waits":
            await turn.without(waits.wait())
        done.append(name)

    bench.dispatch._work = work
    bench.add("t/waits", "t/works", "t/works")
    await until(lambda: done == ["t/works", "t/works"], "the others")
    waits.set()
    await until(lambda: len(done) == 3, "the one that waited")
    assert bench.dispatch._fair.running == 0


@pytest.mark.parametrize("moment", ["waiting", "coming back"])
async def test_cancelled_step_keeps_no_turn(make, moment):
    bench = make(turns=1)
    waits = asyncio.Event()

    async def work(job: Job, turn: Turn) -> None:
        if (job.taken.stored.key or b"") == b"t/waits":
            await turn.without(waits.wait())
        else:
            await bench.free.wait()

    bench.dispatch._work = work
    bench.add("t/waits")
    await asyncio.sleep(0)
    (task,) = bench.dispatch._going
    if moment == "coming back":
        bench.add("t/works")  # has the only turn now
        await asyncio.sleep(0)
        waits.set()
        await asyncio.sleep(0)
    task.cancel()
    bench.free.set()
    await until(lambda: not bench.dispatch._going, "the end of both")
    assert bench.dispatch._fair.running == 0
    bench.add("t/works")
    await until(lambda: not bench.dispatch._going, "the next one")


async def test_steps_that_only_wait_are_given_up_when_their_partition_goes(make):
    bench = make()

    async def work(job: Job, turn: Turn) -> None:
        turn.begun = job.customer == "called"
        if job.customer in ("waits", "called"):
            await turn.without(bench.free.wait())
        await bench.free.wait()

    bench.dispatch._work = work
    bench.add("t/waits", "t/works", "t/called")
    await asyncio.sleep(0)
    bench.dispatch.abandon()
    assert len(bench.dispatch._going) == 3  # it is ours
    bench.log.assignment.ours = False
    bench.dispatch.abandon()
    await until(lambda: len(bench.dispatch._going) == 2, "one given up")
    bench.free.set()
    await bench.dispatch.stop(5)


async def test_stopped_dispatch_begins_nothing_more(make):
    bench = make(turns=1)
    bench.add("t/u", "t/u")
    await until(lambda: len(bench.begun) == 1, "the first")
    stopping = asyncio.create_task(bench.dispatch.stop(5))
    await asyncio.sleep(0)
    bench.free.set()
    await stopping
    assert len(bench.begun) == 1

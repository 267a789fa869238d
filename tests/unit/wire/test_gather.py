"""Many callers, few requests, each its own answers."""

import asyncio
from collections.abc import Sequence

import pytest

from schemas.errors import DependencyDown, NeighbourhoodError
from schemas.events import Place
from wire.bus import Record
from wire.gather import Gathered


class Slow:
    """A publisher that answers when told; refuses records whose key says so."""

    def __init__(self) -> None:
        self.requests: list[list[bytes | None]] = []
        self.go = asyncio.Event()
        self.broken = False

    async def publish(self, records: Sequence[Record]) -> list[Place | NeighbourhoodError]:
        self.requests.append([record.key for record in records])
        await self.go.wait()
        if self.broken:
            raise RuntimeError("a defect")
        return [
            DependencyDown("no") if record.key == b"bad" else Place("t", 0, int(record.key or b"0"))
            for record in records
        ]


def record(key: bytes) -> Record:
    return Record("t", key, b"")


async def started(gathered: Gathered, *keys: bytes) -> "asyncio.Task[list[object]]":
    task = asyncio.create_task(gathered.publish([record(key) for key in keys]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task  # type: ignore[return-value]


async def test_what_comes_while_one_is_under_way_shares_the_next_request():
    slow = Slow()
    gathered = Gathered(slow)
    tasks = [
        await started(gathered, b"1"),
        await started(gathered, b"2", b"3"),
        await started(gathered, b"bad"),
    ]
    assert slow.requests == [[b"1"]]
    slow.go.set()
    one, two, three = await asyncio.gather(*tasks)
    assert slow.requests == [[b"1"], [b"2", b"3", b"bad"]]
    assert one == [Place("t", 0, 1)]
    assert two == [Place("t", 0, 2), Place("t", 0, 3)]
    assert isinstance(three[0], DependencyDown)


async def test_a_lone_record_leaves_at_once_and_again_later():
    slow = Slow()
    slow.go.set()
    gathered = Gathered(slow)
    for number in (b"1", b"2"):
        assert await gathered.publish([record(number)]) == [Place("t", 0, int(number))]
    assert slow.requests == [[b"1"], [b"2"]]
    assert await gathered.publish([]) == []


async def test_a_caller_that_gives_up_does_not_disturb_the_others():
    slow = Slow()
    gathered = Gathered(slow)
    first, second = await started(gathered, b"1"), await started(gathered, b"2")
    second.cancel()
    third = await started(gathered, b"3")
    slow.go.set()
    assert await first == [Place("t", 0, 1)]
    assert await third == [Place("t", 0, 3)]
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_a_defect_reaches_every_caller_and_the_next_ones_go_on():
    slow = Slow()
    slow.broken = True
    gathered = Gathered(slow)
    tasks = [await started(gathered, b"1"), await started(gathered, b"2")]
    slow.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [RuntimeError, RuntimeError]
    slow.broken = False
    assert await gathered.publish([record(b"4")]) == [Place("t", 0, 4)]

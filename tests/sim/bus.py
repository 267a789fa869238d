"""The log as lists, members of groups that come and go, and a network that loses answers."""

import asyncio
from collections.abc import Callable, Sequence

from schemas.errors import DependencyDown, NeighbourhoodError
from tests.sim.dice import Dice
from tests.sim.loop import Process, alive
from wire.bus import MemoryBus, Place, Record, Stored
from wire.consumer import Assignment, Taken

BATCH = 7


class Bus:
    """All topics, what the groups have committed, and who is a member.

    Args:
        partitions: How many each topic has.
        dice: Chance.
        careless: Commit what is taken, not what is done.
    """

    def __init__(self, partitions: dict[str, int], dice: Dice, *, careless: bool = False) -> None:
        self.careless = careless
        self.partitions = partitions
        self.memory = MemoryBus(partitions)
        self.dice = dice
        self.committed: dict[tuple[str, str, int], int] = {}
        self.members: dict[str, list[Member]] = {}
        self.appended: list[Callable[[Stored], None]] = []

    async def publish(self, records: Sequence[Record]) -> list[Place | NeighbourhoodError]:
        """Append, or do not; sometimes what was appended is said to have failed."""
        answers: list[Place | NeighbourhoodError] = []
        await self.dice.pause(0.004)
        alive()
        for record in records:
            lost = self.dice.once_in(50)
            if lost and self.dice.once_in(2):
                answers.append(DependencyDown("Not taken.", code="kafka_down"))
                continue
            answer = await self.append(record)
            answers.append(DependencyDown("Not told.", code="kafka_down") if lost else answer)
            if self.dice.once_in(10):
                await self.dice.pause(0.002)
                alive()
        await self.dice.pause(0.004)
        alive()
        return answers

    async def append(self, record: Record) -> Place:
        """Append for certain."""
        (place,) = await self.memory.publish([record])
        assert isinstance(place, Place), place
        stored = self.all(place.topic, place.partition)[place.offset]
        for look in self.appended:
            look(stored)
        for members in self.members.values():
            for member in members:
                member.wake.set()
        return place

    def all(self, topic: str, partition: int) -> list[Stored]:
        """Everything on a partition."""
        return self.memory._logs[topic, partition]

    def join(self, member: "Member") -> None:
        """Let a member in; everybody gets partitions anew, and is not waited for."""
        self.members.setdefault(member.group, []).append(member)
        self.assign(member.group)

    def leave(self, member: "Member") -> None:
        """Let a member go."""
        self.members[member.group].remove(member)
        self.assign(member.group)

    def assign(self, group: str) -> None:
        """Give the partitions of a group to its members."""
        members = self.members[group]
        for member in members:
            member.lose()
        if not members:
            return
        places = [(topic, n) for topic in members[0].topics for n in range(self.partitions[topic])]
        for number, place in enumerate(places):
            members[number % len(members)].get(place)


class Member:
    """One member of a group: the port that `wire.consumer.GroupConsumer` is."""

    def __init__(
        self,
        bus: Bus,
        group: str,
        topics: Sequence[str],
        deliver: Callable[[list[Taken]], None],
        rebalanced: Callable[[], None] = lambda: None,
    ) -> None:
        self.group = group
        self.topics = list(topics)
        self.wake = asyncio.Event()
        self._bus = bus
        self._deliver = deliver
        self._rebalanced = rebalanced
        self._ours: dict[tuple[str, int], tuple[Assignment, int]] = {}

    async def serve(self, process: Process) -> None:
        """Read what comes, until the process is killed."""
        self._bus.join(self)
        try:
            while True:
                self.wake.set() if self._read() else None
                await self.wake.wait()
                self.wake.clear()
                await self._bus.dice.pause(0.003)
        finally:
            if process.dead:
                self._bus.leave(self)

    def _read(self) -> bool:
        """Take some; says whether there is more."""
        more = False
        for place, (assignment, position) in list(self._ours.items()):
            found = self._bus.all(*place)[position : position + BATCH]
            if not found:
                continue
            self._ours[place] = (assignment, position + len(found))
            more = True
            for stored in found:
                assignment.offsets.take(stored.place.offset)
            if self._bus.careless:
                self._bus.committed[self.group, *place] = position + len(found)
            self._deliver([Taken(stored, assignment, 0.0) for stored in found])
        return more

    def lose(self) -> None:
        """Lose everything: what has begun goes on, and its end counts no more."""
        for assignment, _ in self._ours.values():
            assignment.ours = False
        self._ours.clear()

    def get(self, place: tuple[str, int]) -> None:
        """Get a partition, from where it was committed."""
        self._rebalanced()
        self._ours[place] = (Assignment(), self._bus.committed.get((self.group, *place), 0))
        self.wake.set()

    def begin(self, taken: Taken) -> bool:
        """See `GroupConsumer.begin`."""
        return taken.assignment.ours

    def done(self, taken: Taken, *, handled: bool) -> None:
        """See `GroupConsumer.done`; commits now and then."""
        if not handled:
            return
        place = taken.stored.place
        taken.assignment.offsets.done(place.offset)
        if taken.assignment.ours and self._bus.dice.once_in(2):
            upto = taken.assignment.offsets.committable
            self._bus.committed[self.group, place.topic, place.partition] = upto

    def put_off(self, taken: Taken) -> None:
        """See `GroupConsumer.put_off`."""
        raise AssertionError("there is always room in these worlds")

    def take_again(self, record: Stored, assignment: Assignment) -> Taken | None:
        """See `GroupConsumer.take_again`."""
        raise AssertionError("there is always room in these worlds")

    def give_up(self, assignment: Assignment, offset: int) -> None:
        """See `GroupConsumer.give_up`."""
        raise AssertionError("there is always room in these worlds")

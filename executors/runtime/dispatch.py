"""From records taken to steps begun: fair turns, bounded memory, orders kept.

    record ─▶ room? ─▶ line ─▶ turn ─▶ work
                │                        └ waits: gives the turn back, comes again
                └ none: put off, read again from the log once its line has room

Which records belong to one line their key says (`workspace/user[/order key]`, by topic): equal keys
lie on one partition in their order, and a line is worked off in that order. A line with records put
off gets no new ones before them.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import structlog

from executors.core.fair import Bounds, Fair, Line, LineKey
from executors.core.room import Room
from schemas.errors import DependencyDown
from schemas.quotas import Plan
from wire.bus import Stored
from wire.consumer import Assignment, Taken

REFILL_MAX: Final = 500  # records read again at a time
_RETRY_S: Final = 0.5
_log = structlog.get_logger()
Result = TypeVar("Result")


class Source(Protocol):
    """Where records come from (`wire.consumer.GroupConsumer`)."""

    def put_off(self, taken: Taken) -> None:
        """Forget a record's content for now."""
        ...

    def take_again(self, record: Stored, assignment: Assignment) -> Taken | None:
        """Count it in again; None: it is another member's by now."""
        ...

    def give_up(self, assignment: Assignment, offset: int) -> None:
        """Note that a record that was put off is not in the log any more."""
        ...


class Again(Protocol):
    """Reads records again (`wire.reread.Reread`)."""

    async def read(self, topic: str, partition: int, offsets: list[int]) -> list[Stored]:
        """Give the records at these offsets."""
        ...


class Work(Protocol):
    """A record taken and read."""

    @property
    def taken(self) -> Taken:
        """The record."""
        ...

    @property
    def customer(self) -> str | None:
        """Whose accounts it uses."""
        ...

    @property
    def is_ordered(self) -> bool:
        """Whether its line has to keep the order."""
        ...


Job = TypeVar("Job", bound=Work)
_Name = tuple[str, int, bytes]


class Turn:
    """The right to call; held by a step while it works.

    Attributes:
        held: False while the step waits.
        begun: The ledger has the step: who leaves it now leaves others asking what came of it.
    """

    __slots__ = ("_back", "_dispatch", "_line", "begun", "held")

    def __init__(self, dispatch: "Dispatch[Job]", line: Line) -> None:
        self._dispatch = dispatch
        self._line = line
        self._back: asyncio.Future[None] | None = None
        self.held = True
        self.begun = False

    async def without(self, wait: Awaitable[Result]) -> Result:
        """Give the turn back, wait, and come back with a turn."""
        self.give_back()
        result = await wait
        self._back = asyncio.get_running_loop().create_future()
        self._dispatch.again(self._line, self)
        try:
            await self._back
        except asyncio.CancelledError:
            if not self._back.cancelled():
                self.held = True  # it came in the same moment; `end` gives it back
            raise
        self.held = True
        return result

    def give_back(self) -> None:
        """Give it back, where it is held."""
        if self.held:
            self.held = False
            self._dispatch.leave(self._line)

    def grant(self) -> bool:
        """Go on; False: nobody waits any more."""
        if self._back is None or self._back.done():
            return False
        self._back.set_result(None)
        return True


@dataclass(slots=True)
class _PutOff:
    """What is put off of one line, by offset."""

    assignment: Assignment
    tenant: str
    offsets: deque[int] = field(default_factory=deque)


class Dispatch(Generic[Job]):
    """Starts a task per step, when it is its turn.

    Args:
        turns: Calls at a time.
        read: Reads a record.
        work: Carries a step out; must not raise.
        source: Where the records come from; asked for when one has no room.
        again: Reads them again.
        plan_of: Gives a workspace's plan.
    """

    def __init__(
        self,
        turns: int,
        read: Callable[[Taken], Job],
        work: Callable[[Job, Turn], Awaitable[None]],
        source: Callable[[], Source],
        again: Again,
        plan_of: Callable[[str], Plan],
    ) -> None:
        self._read = read
        self._work = work
        self._source = source
        self._again = again
        self._fair: Fair[Job | Turn] = Fair(turns, lambda name: bounds(plan_of(name)))
        self._room = Room()
        self._put_off: dict[_Name, _PutOff] = {}
        self._late: dict[str, set[_Name]] = {}  # the same names, by workspace
        self._refilling: asyncio.Task[None] | None = None
        self._going: dict[asyncio.Task[None], tuple[Job, Turn]] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        """Steps in memory that hold no turn."""
        return self._room.records - self._fair.running

    @property
    def put_off(self) -> int:
        """Steps of which only the offset is kept."""
        return sum(len(each.offsets) for each in self._put_off.values())

    def deliver(self, batch: list[Taken]) -> None:
        """Take records in, and start what may start."""
        for taken in batch:
            place = taken.stored.place
            key = taken.stored.key or b""
            tenant = key.partition(b"/")[0].decode(errors="replace")
            name = (place.topic, place.partition, key)
            behind = self._behind(name, taken) if self._put_off else None
            if behind is None and self._room.admits(tenant, name):
                self._add(tenant, name, taken)
                continue
            if behind is None:
                behind = self._put_off[name] = _PutOff(taken.assignment, tenant)
                self._late.setdefault(tenant, set()).add(name)
            behind.offsets.append(place.offset)
            self._source().put_off(taken)
        self._pump()

    def _behind(self, name: _Name, taken: Taken) -> _PutOff | None:
        """Give what is put off of a line; what is of a time before a rebalance is forgotten."""
        found = self._put_off.get(name)
        if found is not None and found.assignment is not taken.assignment:
            self._settle(name)
            return None
        return found

    def _settle(self, name: _Name) -> None:
        """Forget a line of which nothing is put off any more."""
        tenant = self._put_off.pop(name).tenant
        names = self._late[tenant]
        names.discard(name)
        if not names:
            del self._late[tenant]

    def _add(self, tenant: str, name: _Name, taken: Taken) -> None:
        job = self._read(taken)
        self._room.add(tenant, name, len(taken.stored.value or b""))
        key = LineKey(name[0], tenant, job.customer, name[2])
        self._fair.add(self._fair.line(key, ordered=job.is_ordered), job)

    def set_plan(self, workspace: str, plan: Plan) -> None:
        """Take in a workspace's plan."""
        self._fair.set_bounds(workspace, bounds(plan))
        self._pump()

    def leave(self, line: Line) -> None:
        """Take a turn back."""
        self._fair.leave(line)
        self._pump()

    def again(self, line: Line, turn: Turn) -> None:
        """Queue a step that waits for a turn again."""
        self._fair.again(line, turn)
        self._pump()

    def _pump(self) -> None:
        """Hand out turns while there are any."""
        while not self._closed and (found := self._fair.take()) is not None:
            line, item = found
            if isinstance(item, Turn):
                if not item.grant():
                    self._fair.leave(line)
                continue
            turn = Turn(self, line)
            task = asyncio.ensure_future(self._run(item, line, turn))
            self._going[task] = (item, turn)
            task.add_done_callback(self._going.pop)

    async def _run(self, job: Job, line: Line, turn: Turn) -> None:
        try:
            await self._work(job, turn)
        finally:
            stored = job.taken.stored
            place = stored.place
            name = (place.topic, place.partition, stored.key or b"")
            self._room.remove(line.key.tenant, name, len(stored.value or b""))
            turn.give_back()
            self._fair.end(line)
            self._pump()
            late = self._late.get(line.key.tenant) if self._late else None
            if late and self._refilling is None:
                self._refill(late)

    def _refill(self, names: Iterable[_Name]) -> None:
        """Begin to read again, if one of these lines has room for many."""
        if not self._closed and any(self._is_hungry(name) for name in names):
            self._refilling = asyncio.ensure_future(self._read_again())
            self._refilling.add_done_callback(self._refilled)

    def _is_hungry(self, name: _Name) -> bool:
        return self._room.hungry(self._put_off[name].tenant, name)

    def _refilled(self, task: "asyncio.Task[None]") -> None:
        self._refilling = None
        if not task.cancelled():
            task.result()
            self._refill(self._put_off)

    async def _read_again(self) -> None:
        """Read what has room, one partition after the other."""
        for (topic, partition), chosen in self._choose().items():
            offsets = sorted(chosen)
            try:
                found = await self._again.read(topic, partition, offsets)
            except DependencyDown as error:
                _log.warning("dispatch.cannot_read_again", topic=topic, code=error.code)
                await asyncio.sleep(_RETRY_S)
                return
            records = {record.place.offset: record for record in found}
            for offset in offsets:
                self._take_in(chosen[offset], offset, records.get(offset))
            self._pump()

    def _choose(self) -> dict[tuple[str, int], dict[int, _Name]]:
        """Say what is read next: of each line that has room for many as much as it may have."""
        chosen: dict[tuple[str, int], dict[int, _Name]] = {}
        room = self._room.copy()
        count = 0
        for name, each in list(self._put_off.items()):
            if not each.assignment.ours:
                self._settle(name)
                continue
            if count >= REFILL_MAX or not room.hungry(each.tenant, name):
                continue
            self._put_off[name] = self._put_off.pop(name)  # next time the others come first
            into = chosen.setdefault(name[:2], {})
            for offset in each.offsets:
                if count >= REFILL_MAX or not room.admits(each.tenant, name):
                    break
                room.add(each.tenant, name, 0)
                into[offset] = name
                count += 1
        return chosen

    def _take_in(self, name: _Name, offset: int, record: Stored | None) -> None:
        each = self._put_off.get(name)
        if each is None or each.offsets[0] != offset:
            return  # another member has it by now
        each.offsets.popleft()
        if not each.offsets:
            self._settle(name)
        if record is None:
            _log.error("record.deleted_before_its_turn", topic=name[0], offset=offset)
            self._source().give_up(each.assignment, offset)
            return
        taken = self._source().take_again(record, each.assignment)
        if taken is not None:
            self._add(each.tenant, name, taken)

    def abandon(self) -> None:
        """Give up steps that wait for their first call and are another member's from now on."""
        for task, (job, turn) in list(self._going.items()):
            if not turn.held and not turn.begun and not job.taken.assignment.ours:
                task.cancel()

    async def stop(self, grace_s: float) -> None:
        """Begin nothing more, give what runs some time, then cancel it."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
        if self._going:
            await asyncio.wait(self._going, timeout=grace_s)
        going = list(self._going)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)


def bounds(plan: Plan) -> Bounds:
    """Give what a plan means for turns."""
    return Bounds(plan.concurrency, plan.customer_concurrency, plan.weight)

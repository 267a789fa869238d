"""Completeness: joins accepted offsets with outcomes and executions with their ends.

    check(...)     one look at a range, by workspace or over all: counts, and every gap by name
    Watch          goes along behind the log for ever: the metric `accepted without outcome`

Both look at the read side, and read of the log only the records that have no outcome there: offsets
that are no records (marks of transactions) are told from lost ones, and gaps get their names.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Gauge

from control.core.completeness import GRACE_S, Gap, Interval, Seen, clip, is_complete, look
from control.store import completeness as store
from control.store.query import Borrowed
from schemas.errors import DependencyDown, NeighbourhoodError
from schemas.events import Place
from schemas.topics import EVENTS, EXECUTIONS
from wire.bus import Log, Stored
from wire.clock import now
from wire.database import Pool, connection

LISTED_MAX: Final = 1_000  # gaps that one answer names; more are counted
READ_MAX: Final = 10_000  # records without an outcome that one look reads from the log
TICK_S: Final = 5.0
# Offsets that one tick goes on by, per partition: bounds its transaction after a long rest.
STRIDE: Final = 50_000
# The read side is so far behind that what it lacks says nothing of what became of events.
BEHIND_MAX: Final = 5_000
_READ_BATCH: Final = 500
_KAFKA_DOWN: Final = "kafka_down"

WITHOUT_OUTCOME = Gauge(
    "nhood_projector_accepted_without_outcome",
    "Events accepted more than a minute ago of which nobody knows what became.",
)
OLDEST_WITHOUT_OUTCOME = Gauge(
    "nhood_projector_accepted_without_outcome_oldest_seconds", "Age of the oldest of these."
)
_log = structlog.get_logger()


@dataclass(slots=True)
class Report:
    """What one look found.

    Attributes:
        ranges: Offsets that were looked at: first, and the one after the last.
        accepted: Events; those in flight are among them.
        in_flight: Without an outcome, but younger than the grace.
        outcomes: Events by outcome.
        executions: What they started, by status; `missing`: it never began.
        unnamed: Gaps beyond those listed.
        behind: Facts on the log that the read side has not read: its gaps may be none.
    """

    ranges: dict[int, Interval]
    accepted: int = 0
    in_flight: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    executions: dict[str, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    unnamed: int = 0
    behind: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return is_complete(self.gaps, self.unnamed)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look at.

    Attributes:
        workspace: Whose; None: everybody's.
        since, until: When it was accepted; None: as far as the log goes.
        grace_s: What is younger may still be on its way.
    """

    workspace: str | None
    since: datetime | None = None
    until: datetime | None = None
    grace_s: float = GRACE_S


async def check(pool: Pool, log: Log, wanted: Wanted, at: datetime) -> Report:
    """Look at a range of accepted events.

    Args:
        pool: The read side.
        log: The log.
        wanted: What to look at.
        at: The time, UTC.

    Raises:
        DependencyDown: Kafka or Postgres is away.
    """
    bounds = await log.bounds(EVENTS)
    since = await _offsets_at(log, wanted.since)
    until = await _offsets_at(log, wanted.until)
    report = Report(clip(bounds, since, until))
    before = at - timedelta(seconds=wanted.grace_s)
    facts = await log.bounds(EXECUTIONS)
    async with connection(pool) as on:
        read = await store.read_side_position(on, EXECUTIONS)
        report.behind = sum(max(0, end - read.get(n, low)) for n, (low, end) in facts.items())
        report.outcomes = await store.outcomes(on, report.ranges, wanted.workspace)
        report.executions = await store.ends(on, report.ranges, wanted.workspace)
        runs = {
            partition: await store.missing(on, partition, interval, LISTED_MAX)
            for partition, interval in report.ranges.items()
        }
        left = await store.without_end(on, report.ranges, wanted.workspace, before, LISTED_MAX + 1)
    await _without_outcome(log, runs, wanted, before, report)
    report.gaps += [_unfinished(item) for item in left]
    report.unnamed += max(0, len(report.gaps) - LISTED_MAX)
    del report.gaps[LISTED_MAX:]
    decided = sum(report.outcomes.values())
    lost = sum(gap.kind == "no_outcome" for gap in report.gaps)
    report.accepted = decided + lost + report.in_flight
    return report


async def _offsets_at(log: Log, at: datetime | None) -> dict[int, int]:
    if at is None:
        return {}
    return await log.offsets_at(EVENTS, max(0, int(at.timestamp() * 1000)))


async def _without_outcome(
    log: Log,
    runs: Mapping[int, list[Interval]],
    wanted: Wanted,
    before: datetime,
    report: Report,
) -> None:
    left = READ_MAX
    for partition, intervals in runs.items():
        for first, end in intervals:
            records = await records_between(log, partition, (first, end), left)
            left -= len(records)
            if left == 0:
                report.unnamed += 1  # at least: what follows was not read
            for record in records:
                seen = _look(record)
                if wanted.workspace not in (None, seen.workspace_id):
                    continue
                if _moment(seen.accepted_ms) >= before:
                    report.in_flight += 1
                else:
                    report.gaps.append(_lost(record.place, seen))


async def records_between(log: Log, partition: int, interval: Interval, limit: int) -> list[Stored]:
    """Read what stands in an interval of the events topic, at most `limit` records."""
    at, end = interval
    found: list[Stored] = []
    while at < end and len(found) < limit:
        try:
            batch = await log.read(EVENTS, partition, at, min(end - at, _READ_BATCH))
        except DependencyDown as error:
            if error.code == _KAFKA_DOWN:
                raise
            break  # retention has passed by this place since we asked
        found += [record for record in batch if record.place.offset < end]
        if not batch:
            break
        at = batch[-1].place.offset + 1
    return found[:limit]


def _look(record: Stored) -> Seen:
    return look(record.value, record.headers, record.place, record.time_ms)


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _lost(place: Place, seen: Seen) -> Gap:
    why = "It was accepted, and there is no outcome of it."
    since = _moment(seen.accepted_ms)
    return Gap("no_outcome", place, seen.workspace_id, seen.event_id, None, since, why)


def _unfinished(found: Mapping[str, object]) -> Gap:
    partition, offset = found["partition"], found["offset"]
    started, last = found["started_at"], found["last_step_at"]
    if found["status"] is None:
        kind, why = "no_execution", "Its outcome names this execution, which never began."
    elif found["parked_for"]:
        kind, why = "not_finished", f"A step is parked: {found['parked_for']}."
    else:
        told = f"its last step ended at {last}" if last else "no step has ended"
        kind, why = "not_finished", f"It runs since {started}; {told}."
    return Gap(
        kind,  # type: ignore[arg-type]  # one of the two words above
        Place(EVENTS, int(str(partition)), int(str(offset))),
        _optional(found["workspace_id"]),
        _optional(found["event_id"]),
        _optional(found["execution_id"]),
        started if isinstance(started, datetime) else None,
        why,
    )


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


class Watch:
    """Goes along behind the log and keeps the metric true; several processes do no harm.

    Events get time to be decided: a tick looks at what had been accepted `after_s` before it. It
    costs two requests to Kafka and one transaction, however much was accepted.

    Args:
        pool: The read side.
        log: The log.
        after_s: How long an event may be without an outcome.
        behind: Says how many facts the read side has not read.
    """

    def __init__(
        self,
        pool: Pool,
        log: Log,
        after_s: float = GRACE_S,
        behind: Callable[[], int] = lambda: 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._log = log
        self._after_s = after_s
        self._behind = behind
        self._monotonic = monotonic
        self._ends: deque[tuple[float, dict[int, tuple[int, int]]]] = deque()

    async def run(self, pause: Callable[[float], Awaitable[None]]) -> None:
        """Tick until cancelled; what goes wrong is told and tried again."""
        while True:
            try:
                await self.tick()
            except NeighbourhoodError as error:
                _log.warning("completeness.waits", code=error.code, detail=error.detail)
            await pause(TICK_S)

    async def tick(self) -> None:
        """Look once.

        Raises:
            DependencyDown: Kafka or Postgres is away.
        """
        at = self._monotonic()
        self._ends.append((at, await self._log.bounds(EVENTS)))
        due = None
        while self._ends and self._ends[0][0] <= at - self._after_s:
            due = self._ends.popleft()[1]
        if due is None or self._behind() > BEHIND_MAX:
            return
        async with connection(self._pool) as on:
            if not await store.share_tables(on):
                return  # the read side is being made anew: what it lacks says nothing
            await store.close_gaps(on)
            checked = await store.positions(on)
            for partition, (low, end) in due.items():
                first = max(low, checked.get(partition, low))
                if first < end:
                    checked[partition] = await self._advance(on, partition, (first, end))
            await store.move(on, checked)
            count, oldest = await store.open_gaps(on)
        WITHOUT_OUTCOME.set(count)
        OLDEST_WITHOUT_OUTCOME.set((now() - oldest).total_seconds() if oldest else 0)

    async def _advance(self, on: Borrowed, partition: int, interval: Interval) -> int:
        """Check an interval, or its beginning; gives the offset up to which it is checked."""
        first, end = interval[0], min(interval[1], interval[0] + STRIDE)
        runs = await store.missing(on, partition, (first, end), LISTED_MAX)
        if len(runs) == LISTED_MAX:
            end = runs[-1][1]
        for run in runs:
            records = await records_between(self._log, partition, run, LISTED_MAX)
            gaps = [(record.place, _look(record)) for record in records]
            await store.add_gaps(
                on,
                [(p, s.workspace_id, s.event_id, _moment(s.accepted_ms)) for p, s in gaps],
            )
            for place, seen in gaps:
                _log.error("event.without_outcome", place=str(place), event_id=seen.event_id)
            if len(records) == LISTED_MAX:
                return records[-1].place.offset + 1
        return end


@contextlib.asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[None]:
    """Run a watch beside something else."""
    task = asyncio.create_task(watch.run(asyncio.sleep), name="completeness")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

"""Schedules: a timer for each, which at its time puts an event on the log and sets itself anew.

The timer of a schedule is kept by the router that has its partition. It is set when there is none,
and anew when the workflow's schedule changed; what it was set to says which times are still to be
handled, so a restart misses none and starts none twice: a time's event has always the same id.
"""

import asyncio
from collections.abc import Callable

import orjson
import structlog

from router.core.match import Compiled, Definitions
from router.core.ticks import due_ticks, is_in_force
from router.intake import publish_until_durable
from router.timers import Timers
from schemas import codec
from schemas.events import TYPE_SCHEDULE, Envelope, Event, Payload, Timer, rfc3339
from schemas.ids import derived_id
from schemas.starts import ScheduleTrigger
from schemas.topics import EVENTS
from wire.bus import Publisher, Record, partition_of
from wire.due import end_of, timer_record

_log = structlog.get_logger()
PREFIX = "schedule/"


class Schedules:
    """Keeps the timers of schedules.

    Args:
        definitions: Every workflow version.
        timers: Where the timers are held.
        publisher: Where to.
        now_us: The wall clock: UTC, microseconds.
    """

    def __init__(
        self,
        definitions: Definitions,
        timers: Timers,
        publisher: Publisher,
        now_us: Callable[[], int],
    ) -> None:
        self._definitions = definitions
        self._timers = timers
        self._publisher = publisher
        self._now_us = now_us
        self._partitions = 0
        self._wanted: asyncio.Queue[Record] = asyncio.Queue()

    def on_whole(self, partition: int, partitions: int) -> None:
        """Set what is missing in a partition that is ours from now on."""
        self._partitions = partitions
        for workflow_id in list(self._definitions.current):
            if partition_of(_key(workflow_id).encode(), partitions) == partition:
                self.on_definition(workflow_id)

    def on_definition(self, workflow_id: str) -> None:
        """Bring a workflow's timer in line with what it says now."""
        if not self._partitions:
            return
        key = _key(workflow_id)
        partition = partition_of(key.encode(), self._partitions)
        if not self._timers.pending.whole(partition):
            return
        live = self._timers.pending.live(partition, key.encode())
        scheduled = self._scheduled(workflow_id)
        if scheduled is None:
            if live is not None:
                self._wanted.put_nowait(end_of(key))
            return
        compiled, trigger = scheduled
        now = self._now_us()
        if live is None or not is_in_force(trigger.cron, live.due_us, now):
            self._wanted.put_nowait(self._next(compiled, trigger, now))

    def on_due(self, key: bytes, timer: Timer) -> tuple[list[Record], Record]:
        """Put the events of a schedule on the log and set its timer anew."""
        workflow_id = key.decode().removeprefix(PREFIX)
        scheduled = self._scheduled(workflow_id)
        if scheduled is None:
            return [], end_of(key.decode())
        compiled, trigger = scheduled
        now = self._now_us()
        ticks = due_ticks(trigger.cron, trigger.catch_up, timer.due_us, now)
        events = [tick_event(compiled, trigger, tick, now) for tick in ticks]
        return events, self._next(compiled, trigger, now)

    async def serve(self) -> None:
        """Publish what definitions lead to, for ever."""
        while True:
            await publish_until_durable(self._publisher, [await self._wanted.get()])

    def _scheduled(self, workflow_id: str) -> tuple[Compiled, ScheduleTrigger] | None:
        compiled = self._definitions.current.get(workflow_id)
        if compiled is None or compiled.version.status != "active":
            return None
        trigger = compiled.plan.workflow.trigger
        return (compiled, trigger) if isinstance(trigger, ScheduleTrigger) else None

    def _next(self, compiled: Compiled, trigger: ScheduleTrigger, now_us: int) -> Record:
        version = compiled.version
        key = _key(version.workflow_id)
        due_us = trigger.cron.after(now_us)
        if due_us is None:
            return end_of(key)
        timer = Timer(version.workspace_id, due_us, "", None, None, {}, now_us)
        return timer_record(key, timer)


def tick_event(compiled: Compiled, trigger: ScheduleTrigger, tick_us: int, now_us: int) -> Record:
    """Build the event of one time of a schedule."""
    version = compiled.version
    name = derived_id("ev", "schedule", version.workflow_id, tick_us)
    body = {
        "scheduled_at": rfc3339(tick_us),
        "timezone": trigger.cron.timezone,
        "cron": trigger.cron.expression,
    }
    envelope = Envelope(
        name,
        TYPE_SCHEDULE,
        "/schedules",
        version.workspace_id,
        now_us,
        subject=version.workflow_id,
    )
    event = Event(Payload(orjson.dumps(body)), mode=version.mode)
    return Record(EVENTS, name.encode(), codec.encode(event), envelope.headers())


def _key(workflow_id: str) -> str:
    return f"{PREFIX}{workflow_id}"

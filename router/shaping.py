"""Triggers that hold events back: debounce, batch, throttle.

    event ─▶ matched ─▶ TriggerHeld, keyed by its group ─▶ remembered beside the executions
                                                             │  its time has come, or it is full
                                                             └▶ an event `nhood.released` ─▶ starts

A group is the workflow, the user and the trigger's key; all of it passes through one partition of
the results topic, in order. What was released gets an event of its own, whose id follows from what
it holds, so doing it twice starts nothing twice. Who belongs to a batch is decided by the places
of the records, so a router that died finds the same ones again.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from router.core.match import Compiled, Definitions, payload_lookup
from router.core.state import StepResult
from router.memory import Memory, RecordOf
from schemas import codec
from schemas.events import (
    TYPE_RELEASED,
    Envelope,
    Event,
    HeldDue,
    Payload,
    Place,
    TriggerHeld,
)
from schemas.ids import derived_id
from schemas.shaping import Batch, Debounce, Shape, Throttle, kind_of
from schemas.starts import ScheduleTrigger
from schemas.template import TemplateError, as_text, render
from schemas.topics import EVENTS, RESULTS
from wire.bus import Record
from wire.due import end_of, publish_at

if TYPE_CHECKING:
    from router.pipeline import Output

BATCH_BYTES_MAX = 900_000  # of the events in a batch: together they are one event of up to 1 MB
FORGET_US = 3_600_000_000  # how long a batch's members are known, should one be delivered again
TURN_MAX_US = 24 * 3_600_000_000  # a throttled event that would wait longer is a dead letter
_MARK = "released#"
_SOURCE = "/triggers"

Held = Mapping[str, Any]


def shape_of(compiled: Compiled) -> Shape | None:
    """Say what a workflow's trigger does with its events; None: it starts at once."""
    trigger = compiled.plan.workflow.trigger
    return None if isinstance(trigger, ScheduleTrigger) else trigger.shape


def hold(
    compiled: Compiled, shape: Shape, envelope: Envelope, user: str | None, payload: object
) -> Record:
    """Build the record that holds an event back; keyed by its group, named by its event."""
    version = compiled.version
    try:
        key = render(shape.key, lambda found: payload_lookup(payload, found)) if shape.key else ""
    except TemplateError:
        key = ""  # events without a key are held together
    group = derived_id("grp", version.workflow_id, user or "", as_text(key))
    held = TriggerHeld(
        workspace_id=version.workspace_id,
        workflow_id=version.workflow_id,
        version=version.version,
        group=group,
        event_id=envelope.id,
        user=user,
        mode=version.mode,
        generation=envelope.generation,
        traceparent=envelope.traceparent,
        payload=orjson.dumps(payload),
        at_us=envelope.time_us,
    )
    return _to_group(held, "nhood.trigger.held", envelope.time_us)


class Shaping:
    """Keeps what is held.

    Args:
        definitions: Hold what the triggers say.
        memory: Remembers what is held, beside the executions.
        now_us: UTC, microseconds.
    """

    def __init__(self, definitions: Definitions, memory: Memory, now_us: Callable[[], int]) -> None:
        self._definitions = definitions
        self._memory = memory
        self._now_us = now_us

    def on_held(self, place: Place, held: TriggerHeld, output: "Output") -> str:
        """Take in an event; gives a reason where it cannot be held."""
        shape = self._shape(held)
        known = self._memory.of(place.partition, held.group)
        if isinstance(shape, Debounce):
            self._debounce(place, held, shape, output)
        elif isinstance(shape, Batch):
            marks = (r.output for n, r in known.items() if n.startswith(_MARK))
            if not any(held.event_id in ids for ids in marks):
                self._batch(place, held, shape, output)
        elif isinstance(shape, Throttle):
            return self._throttle(place, held, shape, output)
        else:
            output.records.append(_released(held, held.event_id, orjson.loads(held.payload)))
        return ""

    def on_due(self, place: Place, due: HeldDue, output: "Output") -> None:
        """Release what is held, if the event that set this still says when."""
        members = self._members(place, due.group)
        if due.kind == "forget":
            name = f"{_MARK}{due.event_id}"
            output.afterwards += self._memory.drop(place.partition, due.group, [name])
        elif due.event_id not in members:
            return
        elif isinstance(self._shape(due), Batch):
            self._release(place, due, members, output)
        elif due.event_id == list(members)[-1]:
            body = members[due.event_id]
            held = _held_again(due, body)
            output.records.append(_released(held, due.event_id, body["payload"]))
            output.afterwards += self._memory.drop(place.partition, due.group, members)

    def _shape(self, of: TriggerHeld | HeldDue) -> Shape | None:
        compiled = self._definitions.versions.get((of.workflow_id, of.version))
        return None if compiled is None else shape_of(compiled)

    def _members(self, place: Place, group: str) -> dict[str, Held]:
        """Give what stood before this place, in the order of the log."""
        known = self._memory.of(place.partition, group)
        found = [
            (result.output["seq"], name, result.output)
            for name, result in known.items()
            if result.status == "held" and result.output["seq"] <= place.offset
        ]
        return {name: body for _, name, body in sorted(found, key=lambda each: each[0])}

    def _remember(
        self, place: Place, held: TriggerHeld, result: StepResult, output: "Output"
    ) -> None:
        record_of = RecordOf(held.workspace_id, held.group, self._now_us())
        output.records += self._memory.remember(place.partition, record_of, {held.event_id: result})

    def _debounce(self, place: Place, held: TriggerHeld, shape: Debounce, output: "Output") -> None:
        members = self._members(place, held.group)
        now = self._now_us()
        since = min((body["since"] for body in members.values()), default=now)
        if held.event_id not in members:
            body = _body(place, held, now) | {"since": since}
            self._remember(place, held, StepResult("held", body), output)
        due_us = min(now + shape.wait_ms * 1_000, since + shape.max_wait_ms * 1_000)
        output.records.append(_due_at(due_us, held, now))
        older = [name for name in members if name != held.event_id]
        output.afterwards += self._memory.drop(place.partition, held.group, older)
        output.afterwards += [end_of(_timer(held.group, name)) for name in older]

    def _batch(self, place: Place, held: TriggerHeld, shape: Batch, output: "Output") -> None:
        now = self._now_us()
        if held.event_id not in self._members(place, held.group):
            self._remember(place, held, StepResult("held", _body(place, held, now)), output)
        members = self._members(place, held.group)
        first = next(iter(members))
        size = sum(body["bytes"] for body in members.values())
        if len(members) >= shape.size or size >= BATCH_BYTES_MAX:
            due = HeldDue(
                held.workspace_id, held.workflow_id, held.version, held.group, first, "", now
            )
            self._release(place, due, members, output)
            output.afterwards.append(end_of(_timer(held.group, first)))
        elif first == held.event_id:
            output.records.append(_due_at(now + shape.wait_ms * 1_000, held, now))

    def _release(
        self, place: Place, due: HeldDue, members: Mapping[str, Held], output: "Output"
    ) -> None:
        first, body = next(iter(members.items()))
        events = [each["payload"] for each in members.values()]
        payload = {"events": events, "count": len(events)}
        held = _held_again(due, body)
        output.records.append(_released(held, f"batch/{first}", payload))
        now = self._now_us()
        # Known before the members are dropped: one that is delivered again must not count twice.
        mark = {f"{_MARK}{first}": StepResult("released", list(members))}
        record_of = RecordOf(due.workspace_id, due.group, now)
        output.afterwards += self._memory.remember(place.partition, record_of, mark)
        output.afterwards += self._memory.drop(place.partition, due.group, members)
        forget = HeldDue(
            due.workspace_id, due.workflow_id, due.version, due.group, first, "forget", now
        )
        record = _to_group(forget, "nhood.trigger.due", now)
        name = f"{due.group}/{first}/forget"
        output.records.append(publish_at(now + FORGET_US, record, name, due.workspace_id, now))

    def _throttle(self, place: Place, held: TriggerHeld, shape: Throttle, output: "Output") -> str:
        now = self._now_us()
        known = self._memory.of(place.partition, held.group)
        slots = {name: result.output for name, result in known.items() if result.status == "slot"}
        if held.event_id in slots:
            slot = slots[held.event_id]
        else:
            taken = sorted(slots.values())
            slot = now
            if len(taken) >= shape.limit:
                slot = max(now, taken[-shape.limit] + shape.per_ms * 1_000)
            if slot - now > TURN_MAX_US:
                return "It would wait for its turn for more than a day."
            self._remember(place, held, StepResult("slot", slot), output)
            last = sorted(slots, key=lambda name: slots[name])
            old = last[: max(0, len(last) + 1 - shape.limit)]
            output.afterwards += self._memory.drop(place.partition, held.group, old)
        record = _released(held, held.event_id, orjson.loads(held.payload))
        if slot > now:
            name = _timer(held.group, held.event_id)
            record = publish_at(slot, record, name, held.workspace_id, now)
        output.records.append(record)
        return ""


def held_reason(shape: Shape, name: str) -> str:
    """Say in an event's outcome what became of it."""
    return f"{name}: held back by its {kind_of(shape)}"


def _body(place: Place, held: TriggerHeld, now_us: int) -> dict[str, Any]:
    return {
        "seq": place.offset,
        "at": now_us,
        "user": held.user,
        "mode": held.mode,
        "gen": held.generation,
        "trace": held.traceparent,
        "bytes": len(held.payload),
        "payload": orjson.loads(held.payload),
    }


def _held_again(due: HeldDue, body: Held) -> TriggerHeld:
    return TriggerHeld(
        due.workspace_id,
        due.workflow_id,
        due.version,
        due.group,
        due.event_id,
        body["user"],
        body["mode"],
        body["gen"],
        body["trace"],
        b"",
        due.at_us,
    )


def _released(held: TriggerHeld, cause: str, payload: object) -> Record:
    """Build the event that starts the workflow; its id follows from what it holds."""
    name = derived_id("ev", "released", held.workflow_id, cause, held.generation)
    envelope = Envelope(
        name,
        TYPE_RELEASED,
        _SOURCE,
        held.workspace_id,
        held.at_us,
        subject=held.workflow_id,
        generation=held.generation,
        traceparent=held.traceparent,
    )
    event = Event(Payload(orjson.dumps(payload)), held.user, held.mode)
    return Record(EVENTS, name.encode(), codec.encode(event), envelope.headers())


def _timer(group: str, event_id: str) -> str:
    return f"{group}/{event_id}/held"


def _due_at(due_us: int, held: TriggerHeld, now_us: int) -> Record:
    due = HeldDue(
        held.workspace_id,
        held.workflow_id,
        held.version,
        held.group,
        held.event_id,
        "release",
        now_us,
    )
    record = _to_group(due, "nhood.trigger.due", due_us)
    name = _timer(held.group, held.event_id)
    return publish_at(due_us, record, name, held.workspace_id, now_us)


def _to_group(record: TriggerHeld | HeldDue, type_: str, time_us: int) -> Record:
    name = f"{record.group}/{record.event_id}"
    envelope = Envelope(name, type_, _SOURCE, record.workspace_id, time_us)
    return Record(RESULTS, record.group.encode(), codec.encode(record), envelope.headers())

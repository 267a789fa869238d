"""From a record read to the records to write; the thin layer between Faust and the core.

Everything is keyed and named by its cause, so handling a record twice writes the same again.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import orjson
import structlog

from router import endings
from router.core.advance import Advance, advance, start
from router.core.match import Compiled, Definitions, body_value, match, user_of
from router.core.pauses import waited
from router.core.replaying import execution_of, items_of, started_again
from router.core.state import Execution, StepResult, decode_state
from router.core.waits import Waits, Wake
from router.facts import fact, no_provider, outcome_record, version_gone
from router.memory import Memory, RecordOf
from router.shaping import Shaping, held_reason, hold, shape_of
from router.stopped import stopped
from router.waiting import pause_records
from schemas import codec
from schemas.errors import CorruptEvent
from schemas.events import (
    CANCELLED,
    FINISHED,
    TYPE_EXECUTE,
    TYPE_RELEASED,
    CancelRequested,
    DeadLetter,
    Envelope,
    Event,
    EventOutcome,
    ExecutionDue,
    ExecutionFinished,
    ExecutionStarted,
    HeldDue,
    Place,
    ReplayRequested,
    RequestStep,
    StepError,
    StepFinished,
    TriggerHeld,
)
from schemas.events import Record as AnyRecord
from schemas.ids import execution_id
from schemas.incoming import ANY_MODE, read_event, workspace_hint
from schemas.lineage import origin
from schemas.pauses import WaitEventStep
from schemas.plan import Plan
from schemas.topics import DEADLETTER, steps_topic
from wire.bus import Record, Stored
from wire.telemetry import DEADLETTERS

_log = structlog.get_logger()
_SOURCE = "/router"
_STARTS = (TYPE_EXECUTE, TYPE_RELEASED)  # these name one workflow and start it at once


@dataclass(slots=True)
class Output:
    """What a batch leads to.

    Attributes:
        records: To be durable before the batch is acknowledged.
        afterwards: To be written once `records` are durable (tombstones).
        unmatched: An event found no workflow; a definition that is still on its way may change it.
        awaited: Steps may wait for this event; a wait that is still on its way may change it.
        wakes: Steps that it wakes; their results are to be written with `records`.
    """

    records: list[Record] = field(default_factory=list)
    afterwards: list[Record] = field(default_factory=list)
    unmatched: bool = False
    awaited: bool = False
    wakes: list[Wake] = field(default_factory=list)


class Pipeline:
    """Handles records one after the other.

    Args:
        definitions: Every workflow version.
        memory: What is remembered of executions.
        providers: Slugs that have a topic.
        now_us: The clock: UTC, microseconds.
        waits: Steps that wait for events.
    """

    def __init__(
        self,
        definitions: Definitions,
        memory: Memory,
        providers: Collection[str],
        now_us: Callable[[], int],
        waits: Waits | None = None,
    ) -> None:
        self._waits = Waits(definitions) if waits is None else waits
        self._definitions = definitions
        self._memory = memory
        self._providers = frozenset(providers)
        self._now_us = now_us
        self._shaping = Shaping(definitions, memory, now_us)

    def on_event(self, stored: Stored, output: Output) -> None:
        """Match an event with workflows; leaves an outcome for its offset, whatever it is."""
        try:
            envelope, event = read_event(
                stored.value,
                stored.headers,
                origin(stored.headers, stored.place),
                stored.time_ms * 1000,
            )
            payload = body_value(event.data.data, event.data.content_type)
        except CorruptEvent as error:
            self._reject(stored, error.code, error.public, output)
        except ValueError as error:
            self._reject(stored, "bad_body", f"The body is not what it says: {error}", output)
        else:
            self._start(stored.place, envelope, event, payload, output)

    def on_repeat(self, first: Place, stored: Stored, output: Output) -> None:
        """Leave the outcome of an event that repeats one at another place; it starts nothing."""
        place = origin(stored.headers, stored.place)
        envelope, event = read_event(stored.value, stored.headers, place, stored.time_ms * 1000)
        now = self._now_us()
        outcome = EventOutcome(
            workspace_id=envelope.workspace,
            event_id=envelope.id,
            event=stored.place,
            outcome="duplicate",
            reason=f"It repeats the event at {first}.",
            executions=[],
            event_type=envelope.type,
            subject=envelope.subject,
            mode=None if event.mode == ANY_MODE else event.mode,
            event_time_us=envelope.time_us or now,
            at_us=now,
            repeats=first,
        )
        output.records.append(outcome_record(outcome, str(stored.place), envelope.workspace))

    def _start(
        self, place: Place, envelope: Envelope, event: Event, payload: object, output: Output
    ) -> None:
        now = self._now_us()
        matches = match(envelope, event, payload, self._definitions)
        output.unmatched = not matches.workflows
        started, reasons = [], []
        for compiled in matches.workflows:
            shape = shape_of(compiled) if envelope.type not in _STARTS else None
            if shape is not None:
                user = user_of(event, compiled.plan.workflow.trigger, payload)
                output.records.append(hold(compiled, shape, envelope, user, payload))
                reasons.append(held_reason(shape, compiled.version.name))
                continue
            execution = _new_execution(compiled, envelope, event, payload)
            started.append(execution.execution_id)
            output.records.append(_started(compiled, execution, envelope, place, now))
            self._begin(compiled.plan, execution, now, output)
        output.awaited = self._waits.awaited(envelope)
        if output.awaited:
            output.wakes = self._waits.arrive(envelope, event, payload, now)
        woken = dict.fromkeys(wake.waiting.execution_id for wake in output.wakes)
        outcome = EventOutcome(
            workspace_id=envelope.workspace,
            event_id=envelope.id,
            event=place,
            outcome="matched" if started or woken or reasons else "no_match",
            reason="; ".join([*reasons, *_woke(output.wakes)]) or matches.reason,
            executions=[*started, *woken],
            event_type=envelope.type,
            subject=envelope.subject,
            mode=None if event.mode == ANY_MODE else event.mode,
            event_time_us=envelope.time_us or now,
            at_us=now,
        )
        output.records.append(outcome_record(outcome, envelope.id, envelope.workspace))

    def _begin(self, plan: Plan, execution: Execution, now: int, output: Output) -> bool:
        """Write what an execution begins with; True where it ends at once."""
        after = start(plan, execution, now)
        self._write(after, None, output)
        if after.finished is None and (timer := endings.timeout(plan, execution, now)):
            output.records.append(timer)
        return after.finished is not None

    def _reject(self, stored: Stored, code: str, reason: str, output: Output) -> None:
        workspace = workspace_hint(stored.value, stored.headers)
        self.dead_letter(stored, "unreadable", code, reason, output)
        outcome = EventOutcome(
            workspace_id=workspace,
            event_id=None,
            event=stored.place,
            outcome="rejected",
            reason=reason,
            executions=[],
            event_type=None,
            subject=None,
            mode=None,
            event_time_us=stored.time_ms * 1000,
            at_us=self._now_us(),
        )
        output.records.append(outcome_record(outcome, str(stored.place), workspace or ""))

    def on_result(self, stored: Stored, output: Output) -> None:
        """Go on with the execution that a result belongs to."""
        try:
            self._follow(stored, codec.decode(stored.value), output)
        except CorruptEvent as error:
            self.dead_letter(stored, "unreadable", error.code, error.public, output)

    def _follow(self, stored: Stored, record: AnyRecord, output: Output) -> None:
        partition = stored.place.partition
        if isinstance(record, CancelRequested):
            self._cancel(partition, record, output)
        elif isinstance(record, StepFinished):
            self._advance(partition, record, output)
        elif isinstance(record, ExecutionDue):
            self._due(partition, record, output)
        elif isinstance(record, TriggerHeld):
            if reason := self._shaping.on_held(stored.place, record, output):
                self.dead_letter(stored, "refused", "throttle_full", reason, output)
        elif isinstance(record, HeldDue):
            self._shaping.on_due(stored.place, record, output)
        elif isinstance(record, ReplayRequested):
            self._replay(partition, record, output)
        else:
            raise CorruptEvent("This record does not belong here.", code="wrong_record")

    def _advance(self, partition: int, result: StepFinished, output: Output) -> None:
        now = self._now_us()
        remembered = self._memory.of(partition, result.execution_id)
        if CANCELLED in remembered or FINISHED in remembered:
            if result.action == "wait_event":  # nothing else would ever end it
                output.afterwards += endings.ends_of_wait(result.execution_id, result.step_id)
            return
        compiled = self._definitions.versions.get((result.workflow_id, result.version))
        if compiled is None:
            output.records.append(fact(version_gone(result, now)))
            return
        told = _step_result(result)
        step = compiled.plan.steps.get(result.step_id)
        if isinstance(step, WaitEventStep):
            told = waited(step, told)
        name = compiled.plan.result_name(result.step_id, result.loop_index)
        if name in remembered and remembered[name].differs(told):
            return  # it ended otherwise before: a late result changes nothing
        carried = decode_state(
            result.state,
            result.workspace_id,
            result.execution_id,
            result.workflow_id,
            result.version,
        )
        known = carried.with_results(remembered)
        after = advance(compiled.plan, known, name, told, now)
        self._write(after, partition, output)
        if compiled.plan.races:
            self._settled(compiled.plan, partition, result, after, output)

    def _settled(
        self, plan: Plan, partition: int, result: StepFinished, after: Advance, output: Output
    ) -> None:
        """End what raced with a result; where all has ended, remember that it has."""
        name = result.execution_id
        output.afterwards += endings.ends_at_result(plan, name, result.step_id, result.loop_index)
        if after.finished is None:
            return
        known = self._memory.of(partition, name)
        now = self._now_us()
        output.records.append(endings.forget(after.execution, known, now))
        output.afterwards += endings.ends_at_end(plan, name)
        self._remember_end(partition, RecordOf(result.workspace_id, name, now), output)

    def _remember_end(self, partition: int, record_of: RecordOf, output: Output) -> None:
        """Remember the end once it is durable; before that it would be lost by a crash."""
        mark = {FINISHED: StepResult("finished")}
        output.afterwards += self._memory.remember(partition, record_of, mark)

    def _due(self, partition: int, due: ExecutionDue, output: Output) -> None:
        now = self._now_us()
        remembered = self._memory.of(partition, due.execution_id)
        if due.kind == endings.FORGET and CANCELLED not in remembered:
            output.afterwards += self._memory.forget(partition, due.execution_id)
        elif CANCELLED not in remembered and FINISHED not in remembered:
            output.records.append(fact(endings.timed_out(due, remembered, now)))
            output.records.append(endings.forget(due, remembered, now))
            compiled = self._definitions.versions.get((due.workflow_id, due.version))
            if compiled is not None:
                ends = endings.ends_of(compiled.plan, due.execution_id, remembered)
                output.afterwards.extend(ends)
            record_of = RecordOf(due.workspace_id, due.execution_id, now)
            self._remember_end(partition, record_of, output)
            reason = "The workflow's timeout was over."
            output.records.append(
                stopped(CancelRequested(due.workspace_id, due.execution_id, reason, now))
            )

    def _replay(self, partition: int, request: ReplayRequested, output: Output) -> None:
        now = self._now_us()
        remembered = self._memory.of(partition, request.execution_id)
        if CANCELLED in remembered or FINISHED in remembered:
            return
        compiled = self._definitions.versions.get((request.workflow_id, request.version))
        if compiled is None:
            output.unmatched = True
            output.records.append(fact(version_gone(request, now)))
            return
        execution = execution_of(request, compiled.plan)
        output.records.append(fact(started_again(request, compiled, now)))
        ended = self._begin(compiled.plan, execution, now, output)
        if not ended and (items := items_of(execution)):
            record_of = RecordOf(request.workspace_id, request.execution_id, now)
            output.records += self._memory.remember(partition, record_of, items)

    def _cancel(self, partition: int, request: CancelRequested, output: Output) -> None:
        now = self._now_us()
        record_of = RecordOf(request.workspace_id, request.execution_id, now)
        mark = {CANCELLED: StepResult("cancelled", request.reason)}
        output.records.extend(self._memory.remember(partition, record_of, mark))
        output.records.append(stopped(request))
        finished = ExecutionFinished(
            workspace_id=request.workspace_id,
            execution_id=request.execution_id,
            workflow_id="",
            version=0,
            mode="",
            status="cancelled",
            error=StepError("cancelled", request.reason or "Cancelled on request."),
            steps=b"{}",
            at_us=now,
        )
        output.records.append(fact(finished))

    def _write(self, after: Advance, partition: int | None, output: Output) -> None:
        execution = after.execution
        trace = execution.traceparent
        for command in after.commands:
            output.records.append(self._command(command, trace))
            if command.deadline_us is not None:
                output.records.append(endings.deadline(command, execution, self._now_us()))
        for pause in after.pauses:
            output.records.extend(pause_records(pause, execution, self._now_us()))
        if partition is not None:
            if after.remember:
                record_of = RecordOf(execution.workspace_id, execution.execution_id, self._now_us())
                output.records.extend(self._memory.remember(partition, record_of, after.remember))
            elif not execution.parallel:
                output.afterwards.extend(self._memory.forget(partition, execution.execution_id))
        if after.finished is not None:
            output.records.append(fact(after.finished))

    def _command(self, command: RequestStep, traceparent: str | None) -> Record:
        if command.provider not in self._providers:
            return no_provider(command)
        envelope = Envelope(
            f"{command.execution_id}/{command.step_id}",
            "nhood.step.requested",
            _SOURCE,
            command.workspace_id,
            command.requested_at_us,
            subject=command.execution_id,
            traceparent=traceparent,
        )
        key = "/".join(
            part
            for part in (command.workspace_id, command.user or "-", command.order_key)
            if part is not None
        )
        topic = steps_topic(command.provider)
        return Record(topic, key.encode(), codec.encode(command), envelope.headers())

    def dead_letter(
        self, stored: Stored, class_: str, code: str, reason: str, output: Output
    ) -> None:
        """Keep a record that cannot be handled, as it was."""
        now = self._now_us()
        workspace = workspace_hint(stored.value, stored.headers)
        letter = DeadLetter(
            original=stored.place,
            key=stored.key,
            value=stored.value,
            headers=stored.headers,
            workspace_id=workspace,
            stage="router",
            class_=class_,
            code=code,
            reason=reason,
            attempts=1,
            at_us=now,
        )
        name = str(stored.place)
        envelope = Envelope(name, "nhood.deadletter", _SOURCE, workspace or "", now)
        output.records.append(
            Record(DEADLETTER, name.encode(), codec.encode(letter), envelope.headers())
        )
        DEADLETTERS.labels(stage="router", reason=code).inc()
        _log.warning("record.dead_lettered", place=name, code=code, workspace=workspace)


def _new_execution(
    compiled: Compiled, envelope: Envelope, event: Event, payload: object
) -> Execution:
    version = compiled.version
    return Execution(
        workspace_id=version.workspace_id,
        execution_id=execution_id(
            envelope.id, version.workflow_id, version.version, envelope.generation
        ),
        workflow_id=version.workflow_id,
        version=version.version,
        mode=version.mode,
        user=user_of(event, compiled.plan.workflow.trigger, payload),
        event_id=envelope.id,
        generation=envelope.generation,
        payload=payload,
        traceparent=envelope.traceparent,
    )


def _woke(wakes: Sequence[Wake]) -> list[str]:
    """Say which waiting steps an event woke; the first ten by name."""
    if not wakes:
        return []
    names = [f"{each.waiting.execution_id}/{each.waiting.step_id}" for each in wakes]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return [f"Woke {', '.join(names[:10])}{more}."]


def _step_result(result: StepFinished) -> StepResult:
    if result.outcome == "succeeded":
        output = orjson.loads(result.output.data) if result.output.data else None
        return StepResult("succeeded", output, vendor_id=result.vendor_id)
    error = result.error or StepError(result.outcome, "The step did not succeed.")
    told = {"code": error.code, "message": error.message, "outcome": result.outcome}
    return StepResult("failed", error=told)


def _started(
    compiled: Compiled, execution: Execution, envelope: Envelope, place: Place, now: int
) -> Record:
    return fact(
        ExecutionStarted(
            workspace_id=execution.workspace_id,
            execution_id=execution.execution_id,
            workflow_id=execution.workflow_id,
            version=execution.version,
            workflow_name=compiled.version.name,
            mode=execution.mode,
            user=execution.user,
            event_id=envelope.id,
            event=place,
            generation=envelope.generation,
            event_time_us=envelope.time_us or now,
            at_us=now,
        )
    )

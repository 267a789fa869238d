"""The records of steps that wait: their timers, and the facts that tell of them."""

import orjson
from msgspec import Struct
from msgspec.structs import replace

from router.core.pauses import DELAY, EVENT
from router.core.standing import Pause, Wanted
from router.core.state import Execution, decode_state
from router.core.waits import Wake
from schemas import codec
from schemas.events import (
    Envelope,
    EventWait,
    Payload,
    Place,
    RequestStep,
    StepError,
    StepFinished,
    StepWaiting,
    rfc3339,
)
from schemas.topics import EXECUTIONS, RESULTS, WAITS
from wire.bus import Record
from wire.due import publish_at

_SOURCE = "/router"
OUTPUT_BYTES_MAX = 256 * 1024  # of the event that a step gives on, as of any output
NOWHERE = Place("", -1, -1)


def pause_records(pause: Pause, execution: Execution, now_us: int) -> list[Record]:
    """Build the timer of a pause, which carries its result, and what else tells of it."""
    error = None if pause.error is None else StepError(*pause.error)
    kind, detail = DELAY, f"until {rfc3339(pause.due_us)}"
    outcome = "succeeded" if error is None else "rejected"
    if pause.wanted is not None:
        kind = EVENT
        detail = f"for an event {pause.wanted.event_type}, {detail}"
        outcome = "succeeded" if error is None else "timed_out"
    action = "wait_event" if pause.wanted is not None else "delay"
    ending = Ending(outcome, pause.due_us, pause.output, error, action)
    finished = finished_step(execution, pause, ending)
    key = f"{execution.execution_id}/{pause.step_id}/{kind}"
    record = result_record(finished, execution.traceparent)
    records = [publish_at(pause.due_us, record, key, execution.workspace_id, now_us)]
    if pause.wanted is not None:
        records.append(_event_wait(pause, pause.wanted, execution, finished))
    elif error is not None:
        return records
    waiting = StepWaiting(
        execution.workspace_id,
        execution.execution_id,
        pause.step_id,
        0,
        kind,
        pause.due_us,
        detail,
        now_us,
    )
    return [*records, waiting_record(waiting)]


def _event_wait(
    pause: Pause, wanted: Wanted, execution: Execution, finished: StepFinished
) -> Record:
    """Build the record by which every router knows that a step waits for an event."""
    wait = EventWait(
        workspace_id=execution.workspace_id,
        execution_id=execution.execution_id,
        workflow_id=execution.workflow_id,
        version=execution.version,
        step_id=pause.step_id,
        mode=execution.mode,
        event_type=wanted.event_type,
        subject=wanted.subject,
        match=orjson.dumps(wanted.match),
        values=orjson.dumps(wanted.values),
        finished=codec.encode(replace(finished, outcome="succeeded", error=None)),
        until_us=pause.due_us,
        at_us=pause.requested_at_us,
    )
    name = f"{execution.execution_id}/{pause.step_id}"
    envelope = Envelope(name, "nhood.event.wait", _SOURCE, wait.workspace_id, wait.at_us)
    return Record(WAITS, name.encode(), codec.encode(wait), envelope.headers())


def woken(wake: Wake, wait: EventWait, now_us: int) -> Record | None:
    """Build the result of a step that an event wakes; None where this very event started it."""
    finished = codec.decode_as(StepFinished, wait.finished)
    names = (wait.workspace_id, wait.execution_id, wait.workflow_id, wait.version)
    execution = decode_state(finished.state, *names)
    if execution.event_id == wake.arrived.envelope.id:
        return None
    output = orjson.dumps({"timed_out": False, "event": wake.arrived.told})
    cut = len(output) > OUTPUT_BYTES_MAX
    if cut:
        output = orjson.dumps({"timed_out": False, "event": {**wake.arrived.told, "data": None}})
    done = replace(finished, output=Payload(output), output_cut=cut, finished_at_us=now_us)
    return result_record(done, execution.traceparent)


class Ending(Struct, frozen=True):
    """How a step ended that no executor tells of.

    Attributes:
        at_us: When: UTC, microseconds.
        action: What kind of step it was, where it called nobody.
    """

    outcome: str
    at_us: int
    output: object = None
    error: StepError | None = None
    action: str = ""


def finished_step(execution: Execution, of: Pause | RequestStep, end: Ending) -> StepFinished:
    """Write the end of a step that no executor tells of."""
    call = of if isinstance(of, RequestStep) else None
    return StepFinished(
        workspace_id=execution.workspace_id,
        execution_id=execution.execution_id,
        workflow_id=execution.workflow_id,
        version=execution.version,
        step_id=of.step_id,
        loop_index=call.loop_index if call else 0,
        effect_key=of.effect_key,
        provider=call.provider if call else "",
        action=call.action if call else end.action,
        outcome=end.outcome,
        output=Payload(b"" if end.error is not None else orjson.dumps(end.output)),
        output_cut=False,
        vendor_id=None,
        error=end.error,
        attempts=b"[]",
        request=Payload(b"null"),
        response=Payload(b"null"),
        connection_id=None,
        from_ledger=False,
        command=NOWHERE,
        state=of.state,
        requested_at_us=of.requested_at_us,
        started_at_us=of.requested_at_us,
        finished_at_us=end.at_us,
    )


def result_record(finished: StepFinished, traceparent: str | None) -> Record:
    """Build the record of a result, as an executor would."""
    envelope = Envelope(
        f"{finished.execution_id}/{finished.step_id}",
        "nhood.step.finished",
        _SOURCE,
        finished.workspace_id,
        finished.finished_at_us,
        subject=finished.execution_id,
        traceparent=traceparent,
    )
    key = finished.execution_id.encode()
    return Record(RESULTS, key, codec.encode(finished), envelope.headers())


def waiting_record(waiting: StepWaiting) -> Record:
    """Build the fact that a step waits."""
    name = waiting.execution_id
    envelope = Envelope(
        f"{name}/{waiting.step_id}/waiting",
        "nhood.step.waiting",
        _SOURCE,
        waiting.workspace_id,
        waiting.at_us,
    )
    return Record(EXECUTIONS, name.encode(), codec.encode(waiting), envelope.headers())

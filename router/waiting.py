"""The records of steps that wait: their timers, and the facts that tell of them."""

import orjson
from msgspec import Struct

from router.core.standing import Pause
from router.core.state import Execution
from schemas import codec
from schemas.events import (
    Envelope,
    Payload,
    Place,
    RequestStep,
    StepError,
    StepFinished,
    StepWaiting,
    rfc3339,
)
from schemas.topics import EXECUTIONS, RESULTS
from wire.bus import Record
from wire.due import publish_at

_SOURCE = "/router"
NOWHERE = Place("", -1, -1)


def pause_records(pause: Pause, execution: Execution, now_us: int) -> list[Record]:
    """Build the timer of a delay, which carries the step's result, and the fact for people."""
    error = None if pause.error is None else StepError(*pause.error)
    outcome = "succeeded" if error is None else "rejected"
    ending = Ending(outcome, pause.due_us, pause.output, error, "delay")
    finished = finished_step(execution, pause, ending)
    key = f"{execution.execution_id}/{pause.step_id}/delay"
    record = result_record(finished, execution.traceparent)
    timer = publish_at(pause.due_us, record, key, execution.workspace_id, now_us)
    if pause.error is not None:
        return [timer]
    waiting = StepWaiting(
        execution.workspace_id,
        execution.execution_id,
        pause.step_id,
        0,
        "delay",
        pause.due_us,
        f"until {rfc3339(pause.due_us)}",
        now_us,
    )
    return [timer, waiting_record(waiting)]


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

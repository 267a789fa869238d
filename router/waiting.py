"""The records of steps that wait: their timers, and the facts that tell of them."""

import orjson

from router.core.standing import Pause
from router.core.state import Execution
from schemas import codec
from schemas.events import (
    Envelope,
    Payload,
    Place,
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
    finished = step_finished(pause, execution, "delay", now_us)
    key = f"{execution.execution_id}/{pause.step_id}/delay"
    timer = publish_at(
        pause.due_us, result_record(finished, execution), key, execution.workspace_id, now_us
    )
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


def step_finished(pause: Pause, execution: Execution, action: str, now_us: int) -> StepFinished:
    """Write the end of a step that calls nobody."""
    error = None if pause.error is None else StepError(*pause.error)
    return StepFinished(
        workspace_id=execution.workspace_id,
        execution_id=execution.execution_id,
        workflow_id=execution.workflow_id,
        version=execution.version,
        step_id=pause.step_id,
        loop_index=0,
        effect_key=pause.effect_key,
        provider="",
        action=action,
        outcome="succeeded" if error is None else "rejected",
        output=Payload(b"" if error is not None else orjson.dumps(pause.output)),
        output_cut=False,
        vendor_id=None,
        error=error,
        attempts=b"[]",
        request=Payload(b"null"),
        response=Payload(b"null"),
        connection_id=None,
        from_ledger=False,
        command=NOWHERE,
        state=pause.state,
        requested_at_us=now_us,
        started_at_us=now_us,
        finished_at_us=pause.due_us,
    )


def result_record(finished: StepFinished, execution: Execution) -> Record:
    """Build the record of a result, as an executor would."""
    envelope = Envelope(
        f"{finished.execution_id}/{finished.step_id}",
        "nhood.step.finished",
        _SOURCE,
        finished.workspace_id,
        finished.finished_at_us,
        subject=finished.execution_id,
        traceparent=execution.traceparent,
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

"""Ends by the clock: a step's deadline, an execution's timeout, and when all may be forgotten.

Where a step may end in two ways (`Plan.races`), every result is remembered, the first one counts,
and the execution's end is remembered too, until nothing of it can be on its way any more.
"""

from collections.abc import Iterator, Mapping

import orjson

from router.core.pauses import DELAY, EVENT
from router.core.state import Execution, StepResult
from router.waiting import Ending, finished_step, result_record
from schemas import codec
from schemas.events import (
    Envelope,
    ExecutionDue,
    ExecutionFinished,
    RequestStep,
    StepError,
)
from schemas.loops import ForEachStep
from schemas.pauses import DelayStep, WaitEventStep
from schemas.plan import Plan
from schemas.topics import RESULTS, WAITS
from schemas.workflow import ActionStep
from wire.bus import Record
from wire.due import end_of, publish_at

FORGET_US = 600_000_000  # for records that were published just when the execution ended
FORGET_LATE_US = 75 * 3_600_000_000  # an executor tries for 72 h at most
DEADLINE = "step_deadline"
TIMEOUT, FORGET = "timeout", "forget"


def deadline_key(execution_id: str, step_id: str, loop_index: int = 0) -> str:
    """Name the timer of a step's deadline."""
    return f"{execution_id}/{step_id}/{loop_index}/deadline"


def deadline(command: RequestStep, execution: Execution, now_us: int) -> Record:
    """Set the timer that fails a step, whatever its executor does."""
    due_us = command.deadline_us or now_us
    seconds = (due_us - now_us) // 1_000_000
    message = f"{command.step_id} had no result within its deadline of {seconds} s."
    ending = Ending("timed_out", due_us, error=StepError(DEADLINE, message))
    finished = finished_step(execution, command, ending)
    key = deadline_key(command.execution_id, command.step_id, command.loop_index)
    record = result_record(finished, execution.traceparent)
    return publish_at(due_us, record, key, command.workspace_id, now_us)


def timeout(plan: Plan, execution: Execution, now_us: int) -> Record | None:
    """Set the timer that ends an execution; None where the workflow has no timeout."""
    if plan.workflow.timeout_ms is None:
        return None
    due_us = now_us + plan.workflow.timeout_ms * 1_000
    return _due(execution, TIMEOUT, due_us, now_us)


def forget(
    execution: Execution | ExecutionDue, known: Mapping[str, StepResult], now_us: int
) -> Record:
    """Set the timer that lets all that is remembered of an ended execution go."""
    late = isinstance(execution, ExecutionDue) or any(
        (result.error or {}).get("code") == DEADLINE for result in known.values()
    )
    due_us = now_us + (FORGET_LATE_US if late else FORGET_US)
    return _due(execution, FORGET, due_us, now_us)


def _due(execution: Execution | ExecutionDue, kind: str, due_us: int, now_us: int) -> Record:
    name = execution.execution_id
    due = ExecutionDue(
        execution.workspace_id,
        name,
        execution.workflow_id,
        execution.version,
        execution.mode,
        kind,
        now_us,
    )
    envelope = Envelope(
        f"{name}/{kind}", "nhood.execution.due", "/router", execution.workspace_id, due_us
    )
    record = Record(RESULTS, name.encode(), codec.encode(due), envelope.headers())
    return publish_at(due_us, record, f"{name}/{kind}", execution.workspace_id, now_us)


def ends_at_result(plan: Plan, execution_id: str, step_id: str, loop_index: int) -> list[Record]:
    """End what would have settled a step, now that it is settled."""
    step = plan.steps.get(step_id)
    if isinstance(step, WaitEventStep):
        return ends_of_wait(execution_id, step_id)
    if isinstance(step, ForEachStep):
        step = step.body
    if isinstance(step, ActionStep) and step.deadline_ms is not None:
        return [end_of(deadline_key(execution_id, step_id, loop_index))]
    return []


def ends_of_wait(execution_id: str, step_id: str) -> list[Record]:
    """End a wait for an event, and its timer."""
    name = f"{execution_id}/{step_id}"
    return [end_of(f"{name}/{EVENT}"), Record(WAITS, name.encode(), None)]


def ends_at_end(plan: Plan, execution_id: str) -> list[Record]:
    """End the timer of the whole execution."""
    return [end_of(f"{execution_id}/{TIMEOUT}")] if plan.workflow.timeout_ms is not None else []


def ends_of(plan: Plan, execution_id: str, known: Mapping[str, StepResult]) -> Iterator[Record]:
    """End everything that an execution may wait for: it is stopped before its end."""
    for name, step in plan.steps.items():
        if name in known:
            continue
        if isinstance(step, DelayStep):
            yield end_of(f"{execution_id}/{name}/{DELAY}")
        else:
            yield from ends_at_result(plan, execution_id, name, 0)


def timed_out(due: ExecutionDue, known: Mapping[str, StepResult], now_us: int) -> ExecutionFinished:
    """Write the end of an execution that lasted too long; later results change nothing."""
    steps = {name: _told(result) for name, result in known.items() if "#" not in name}
    return ExecutionFinished(
        workspace_id=due.workspace_id,
        execution_id=due.execution_id,
        workflow_id=due.workflow_id,
        version=due.version,
        mode=due.mode,
        status="failed",
        error=StepError("workflow_timeout", "The execution lasted longer than its timeout."),
        steps=orjson.dumps(steps),
        at_us=now_us,
    )


def _told(result: StepResult) -> dict[str, object]:
    told: dict[str, object] = {"status": result.status}
    if result.error is not None:
        told["error"] = dict(result.error)
    return told

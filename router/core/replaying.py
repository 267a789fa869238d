"""What a replay begins with: the event as it was or in other words, and results that stay."""

import orjson

from router.core.match import Compiled
from router.core.pauses import waited
from router.core.state import Execution, StepResult, decode_result
from schemas.errors import CorruptEvent
from schemas.events import ExecutionStarted, ReplayRequested
from schemas.pauses import WaitEventStep
from schemas.plan import Plan


def execution_of(request: ReplayRequested, plan: Plan) -> Execution:
    """Build the execution that a replay wants.

    Raises:
        CorruptEvent: `bad_replay`; its input or its results cannot be read.
    """
    try:
        payload = orjson.loads(request.input.data)
        known = {
            name: _result(plan, name, decode_result(told))
            for name, told in orjson.loads(request.results.data).items()
            if name.partition("#")[0] in plan.steps
        }
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CorruptEvent(
            "What a replay begins with cannot be read.", code="bad_replay", detail=str(error)
        ) from error
    return Execution(
        workspace_id=request.workspace_id,
        execution_id=request.execution_id,
        workflow_id=request.workflow_id,
        version=request.version,
        mode=request.mode,
        user=request.user,
        event_id=request.event_id,
        generation=request.generation,
        payload=payload,
        results=known,
        keys=(request.effect_version, request.effect_generation),
    )


def items_of(execution: Execution) -> dict[str, StepResult]:
    """List the results of loops' items: they do not ride, so they have to be remembered."""
    return {name: result for name, result in execution.results.items() if "#" in name}


def started_again(request: ReplayRequested, compiled: Compiled, now_us: int) -> ExecutionStarted:
    """Tell that it began, and what it runs once more."""
    return ExecutionStarted(
        workspace_id=request.workspace_id,
        execution_id=request.execution_id,
        workflow_id=request.workflow_id,
        version=request.version,
        workflow_name=compiled.version.name,
        mode=request.mode,
        user=request.user,
        event_id=request.event_id,
        event=request.event,
        generation=request.generation,
        event_time_us=request.event_time_us,
        at_us=now_us,
        replays=request.replays,
        replay_id=request.replay_id,
        effect_version=request.effect_version,
        effect_generation=request.effect_generation,
    )


def _result(plan: Plan, name: str, told: StepResult) -> StepResult:
    step = plan.steps.get(name)
    return waited(step, told) if isinstance(step, WaitEventStep) else told

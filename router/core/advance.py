"""The heart: what follows from what is known of an execution.

`settle` walks the steps in their order once and says of each whether it is settled, ready or
waiting; `advance` turns that into commands and, when nothing is left, the end. Both are pure: the
same results give the same commands with the same keys, so doing it twice does no harm.

    waiting ─▶ ready ─▶ succeeded | failed      (action; a template that fails is `failed` at once)
       │         └────▶ true | false | failed   (condition)
       └──────────────▶ skipped                 (not chosen, or what it follows did not succeed)
"""

from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from router.core.compensate import compensate
from router.core.loops import for_each, to_remember
from router.core.pauses import pause, waited
from router.core.standing import (
    FAILED,
    FALSE,
    READY,
    SKIPPED,
    SUCCEEDED,
    TRUE,
    WAITING,
    Pause,
    StepState,
    failed,
)
from router.core.state import (
    STATE_BYTES_MAX,
    Execution,
    StepResult,
    encode_state,
    prune,
)
from schemas.condition import ConditionError
from schemas.events import ExecutionFinished, Payload, RequestStep, StepError
from schemas.loops import ForEachStep
from schemas.pauses import WaitEventStep
from schemas.plan import Needs, Plan
from schemas.template import (
    MISSING,
    Lookup,
    Reference,
    TemplateError,
    Text,
    as_text,
    render,
    walk,
)
from schemas.workflow import ActionStep, ConditionStep, Step

PARAMS_BYTES_MAX = 1024 * 1024  # as much as an event may hold


class Advance(Struct, frozen=True):
    """What to write.

    Attributes:
        commands: To the providers' topics.
        remember: Results of this execution that do not ride in every command under way.
        finished: The end, when it has come.
        execution: What is known now.
        pauses: Steps that wait from now on.
    """

    commands: tuple[RequestStep, ...]
    remember: Mapping[str, StepResult]
    finished: ExecutionFinished | None
    execution: Execution
    pauses: tuple[Pause, ...] = ()


def start(plan: Plan, execution: Execution, now_us: int) -> Advance:
    """Begin an execution."""
    return _advance(plan, execution, frozenset(), {}, now_us)


def advance(
    plan: Plan, execution: Execution, step_id: str, result: StepResult, now_us: int
) -> Advance:
    """Go on after a step's result.

    Args:
        plan: The workflow version that the execution is pinned to.
        execution: Everything known besides this result (carried and remembered).
        step_id: What ended (`Plan.result_name`); what the workflow does not have changes nothing.
        result: How it ended.
        now_us: UTC, microseconds.
    """
    step = plan.steps.get(step_id)
    if isinstance(step, WaitEventStep):
        result = waited(step, result)
    before: frozenset[str] = frozenset()
    if execution.parallel:
        earlier = {name: r for name, r in execution.results.items() if name != step_id}
        states = settle(plan, replace(execution, results=earlier), now_us)
        before = frozenset(_ready(states))
    known = execution.with_results({step_id: result})
    return _advance(plan, known, before - {step_id}, {step_id: result}, now_us)


def _advance(
    plan: Plan,
    execution: Execution,
    under_way: frozenset[str],
    news: Mapping[str, StepResult],
    now_us: int,
) -> Advance:
    states = settle(plan, execution, now_us)
    derived = {name: state.result for name, state in states.items() if state.result is not None}
    known = execution.with_results(derived)
    ready = _ready(states)
    # A command that is under way does not carry what we know now: it has to be remembered.
    # So has what became of a loop's items, which no command carries.
    parallel = plan.races or len(ready) > 1 or not under_way.isdisjoint(ready)
    if plan.loops and not parallel:
        parallel = any(states[name].status == READY for name in plan.loops)
    known = prune(replace(known, parallel=parallel), plan)
    wanted = [state for name, state in ready.items() if name not in under_way]
    commands: tuple[RequestStep, ...] = ()
    pauses: tuple[Pause, ...] = ()
    if wanted:
        state = encode_state(known)
        if len(state.data) > STATE_BYTES_MAX:
            return Advance((), {}, _too_large(plan, execution, states, now_us), known)
        commands = tuple(
            replace(each.command, state=state) for each in wanted if each.command is not None
        )
        pauses = tuple(
            replace(each.pause, state=state) for each in wanted if each.pause is not None
        )
    finished = None if ready else _finish(plan, execution, states, now_us)
    remember = to_remember(plan, news, states) if known.parallel else {}
    return Advance(commands, remember, finished, known, pauses)


def _ready(states: Mapping[str, StepState]) -> dict[str, StepState]:
    """List what is ready by its name: steps, and items of loops."""
    found: dict[str, StepState] = {}
    for name, state in states.items():
        if state.status == READY:
            if state.items is None:
                found[name] = state
            else:
                found.update(state.items)
    return found


def settle(plan: Plan, execution: Execution, now_us: int) -> dict[str, StepState]:
    """Say where every step stands, from results alone."""
    states: dict[str, StepState] = {}
    lookup = _lookup(plan, execution, states)
    for name in plan.order:
        states[name] = _step_state(plan, execution, name, states, lookup, now_us)
    if plan.undo and _failure(plan, states) and all(state.settled for state in states.values()):
        compensate(plan, execution, states, lambda step: _command(execution, step, lookup, now_us))
    return states


def _step_state(
    plan: Plan,
    execution: Execution,
    name: str,
    states: Mapping[str, StepState],
    lookup: Lookup,
    now_us: int,
) -> StepState:
    known = execution.results.get(name)
    if known is not None:
        return StepState(known.status, result=known)
    needs = plan.needs[name]
    if not all(states[other].settled for other in needs.all):
        return StepState(WAITING)
    reason = _skip_reason(plan, needs, states)
    if reason:
        return StepState(SKIPPED, reason)
    return _begun(execution, plan.steps[name], lookup, now_us)


def _begun(execution: Execution, step: Step, lookup: Lookup, now_us: int) -> StepState:
    """Say where a step stands whose turn it is."""
    if isinstance(step, ActionStep):  # first: most are
        return _command(execution, step, lookup, now_us)
    if isinstance(step, ConditionStep):
        return _decide(step, lookup)
    if isinstance(step, ForEachStep):
        body = step.body
        return for_each(
            step,
            execution.results,
            lookup,
            lambda inside, index: _command(execution, body, inside, now_us, index),
        )
    return pause(step, execution, lookup, now_us)


def _skip_reason(plan: Plan, needs: Needs, states: Mapping[str, StepState]) -> str:
    """Say why a step whose needs are settled does not run; empty where it runs."""
    if needs.branch is not None and (reason := _not_chosen(plan, *needs.branch, states)):
        return reason
    blocked = [other for other in needs.hard if _blocks(plan, other, states[other])]
    if blocked:
        return "upstream_failed"
    if needs.hard and not any(_ran(plan, other, states[other]) for other in needs.hard):
        return "upstream_skipped"
    return ""


def _not_chosen(plan: Plan, owner: str, value: bool, states: Mapping[str, StepState]) -> str:  # noqa: FBT001
    """Say why a branch does not run; empty where it does."""
    state = states[owner]
    if state.status == SKIPPED:
        return state.reason
    if isinstance(plan.steps[owner], ActionStep | ForEachStep):
        return "" if state.status == FAILED else "not_chosen"
    if state.status == FAILED:
        return "upstream_failed"
    return "" if (state.status == TRUE) is value else "not_chosen"


def _ran(plan: Plan, name: str, state: StepState) -> bool:
    """Say whether a step ran for those that follow it; not where others took over from it."""
    if state.status == FAILED:
        return _on_error(plan, name) != "branch"
    return state.status != SKIPPED


def _on_error(plan: Plan, name: str) -> str:
    step = plan.steps[name]
    return step.on_error if isinstance(step, ActionStep | ForEachStep) else "fail"


def _blocks(plan: Plan, name: str, state: StepState) -> bool:
    if state.status == FAILED:
        return _on_error(plan, name) == "fail"
    return state.status == SKIPPED and state.reason == "upstream_failed"


def _decide(step: ConditionStep, lookup: Lookup) -> StepState:
    try:
        decision = step.condition.decide(lookup)
    except ConditionError as error:
        return failed(error.code, str(error))
    status = TRUE if decision.value else FALSE
    return StepState(status, result=StepResult(status, dict(decision.operands)))


def _command(
    execution: Execution, step: ActionStep, lookup: Lookup, now_us: int, loop_index: int = 0
) -> StepState:
    try:
        params = orjson.dumps(render(step.config, lookup))
        user = _text(step.user, lookup) or execution.user
        order_key = _text(step.order_key, lookup)
    except TemplateError as error:
        return failed(error.code, f"{step.id}: {error}")
    if len(params) > PARAMS_BYTES_MAX:
        return failed("params_too_large", f"{step.id}: over {PARAMS_BYTES_MAX} bytes.")
    command = RequestStep(
        workspace_id=execution.workspace_id,
        execution_id=execution.execution_id,
        workflow_id=execution.workflow_id,
        version=execution.version,
        step_id=step.id,
        loop_index=loop_index,
        effect_key=execution.effect_key(step.id, loop_index),
        provider=step.provider,
        action=step.action,
        params=Payload(params),
        mode=execution.mode,
        user=user,
        connection_id=step.connection,
        order_key=order_key,
        max_attempts=step.retry.max_attempts,
        retry_delay_ms=step.retry.delay_ms,
        retry_max_delay_ms=step.retry.max_delay_ms,
        timeout_ms=step.timeout_ms,
        on_unknown=step.on_unknown,
        state=Payload(b""),
        requested_at_us=now_us,
        deadline_us=None if step.deadline_ms is None else now_us + step.deadline_ms * 1_000,
    )
    return StepState(READY, command=command)


def _text(text: Text | None, lookup: Lookup) -> str | None:
    return None if text is None else as_text(render(text, lookup)) or None


def _lookup(plan: Plan, execution: Execution, states: Mapping[str, StepState]) -> Lookup:
    """Say what a reference stands for (`schemas.template` names the roots)."""
    scope: dict[str, Any] = {
        "execution": {"id": execution.execution_id, "event_id": execution.event_id},
        "workflow": {
            "id": execution.workflow_id,
            "name": plan.workflow.name,
            "version": execution.version,
        },
        "trigger": execution.payload,
    }

    def look(reference: Reference) -> Any:  # noqa: ANN401 - any JSON value
        path = reference.path
        if path[0] == "steps":
            return walk(_steps_scope(states), path[1:])
        if path[0] == "user" and path[1:] == ("id",) and execution.user is not None:
            return execution.user
        if path[0] in scope:
            found = walk(scope, path)
            if found is not MISSING:
                return found
        return walk(execution.payload, path)

    return look


def _steps_scope(states: Mapping[str, StepState]) -> dict[str, Any]:
    return {
        name: {
            "status": state.status,
            "output": state.result.output,
            "id": state.result.vendor_id,
            "error": state.result.error,
        }
        for name, state in states.items()
        if state.result is not None
    }


def _finish(
    plan: Plan, execution: Execution, states: Mapping[str, StepState], now_us: int
) -> ExecutionFinished:
    error = _failure(plan, states)
    return ExecutionFinished(
        workspace_id=execution.workspace_id,
        execution_id=execution.execution_id,
        workflow_id=execution.workflow_id,
        version=execution.version,
        mode=execution.mode,
        status=FAILED if error else SUCCEEDED,
        error=error,
        steps=orjson.dumps({name: _told(plan, name, state) for name, state in states.items()}),
        at_us=now_us,
    )


def _failure(plan: Plan, states: Mapping[str, StepState]) -> StepError | None:
    """Give the first failure that nobody took care of."""
    for name, state in states.items():
        if state.status == FAILED and _blocks(plan, name, state):
            return _step_error(name, state)
    return None


def _told(plan: Plan, name: str, state: StepState) -> dict[str, Any]:
    told: dict[str, Any] = {"status": state.status}
    if state.reason:
        told["reason"] = state.reason
    decided = state.status in (TRUE, FALSE) and isinstance(plan.steps[name], ConditionStep)
    if state.result is not None and decided:
        told["operands"] = state.result.output
    if state.result is not None and state.result.error is not None:
        told["error"] = dict(state.result.error)
    if state.result is not None and state.result.counts is not None:
        told["items"] = dict(
            zip(("total", "succeeded", "failed"), state.result.counts, strict=True)
        )
    return told


def _step_error(name: str, state: StepState) -> StepError:
    error = (state.result.error if state.result else None) or {}
    return StepError(error.get("code", "failed"), error.get("message", ""), f"step {name}")


def _too_large(
    plan: Plan, execution: Execution, states: Mapping[str, StepState], now_us: int
) -> ExecutionFinished:
    message = (
        f"What the steps left to do would read is over {STATE_BYTES_MAX} bytes; "
        "let steps read fewer or smaller outputs."
    )
    ended = _finish(plan, execution, states, now_us)
    return replace(ended, status=FAILED, error=StepError("state_too_large", message))

"""A dry replay: runs a workflow with recorded answers, by the same `advance`; calls nobody.

    answer      the step
    recorded    has the answer that was recorded when it ran
    would_call  would call its vendor: there is no recorded success, or it is to be done again
    wait        waits for a time or an event; that is taken to have come

A step that would call and was never recorded is taken to succeed, with an output that nobody knows:
what reads it is `certain: false`, and so is all that hangs on that.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson
from msgspec.structs import replace

from router.core.advance import Advance, advance, start
from router.core.replaying import execution_of
from router.core.standing import SUCCEEDED, Pause
from router.core.state import Execution, StepResult, decode_result
from schemas.events import ExecutionFinished, ReplayRequested, RequestStep
from schemas.plan import Plan

RECORDED, WOULD_CALL, WAIT = "recorded", "would_call", "wait"
PARAMS_SHOWN_MAX: Final = 16 * 1024  # bytes of a request that a report holds; else its hash
STEPS_MAX: Final = 5_000  # answers of one rehearsal: bounds what loops may take


class _Run:
    """One rehearsal under way."""

    def __init__(
        self, plan: Plan, recorded: Mapping[str, StepResult], again: Collection[str]
    ) -> None:
        self.plan = plan
        self.recorded = recorded
        self.again = again
        self.told: dict[str, dict[str, Any]] = {}
        self.unknown: set[str] = set()

    def answer(self, command: RequestStep) -> tuple[str, StepResult]:
        """Answer a command from the recordings, or say that it would be called."""
        step = command.step_id
        name = self.plan.result_name(step, command.loop_index)
        known = self.recorded.get(name)
        good = known is not None and known.status == SUCCEEDED
        told: dict[str, Any] = {
            "answer": RECORDED if good and step not in self.again else WOULD_CALL,
            "provider": command.provider,
            "action": command.action,
            "user": command.user,
            "effect_key": command.effect_key,
            "request": _shown(command.params.data),
        }
        self.told[name] = told
        if good and known is not None:
            return name, known
        if known is not None and known.error is not None:
            told["last_error"] = dict(known.error)
        self.unknown.add(step)
        return name, StepResult(SUCCEEDED)

    def waited(self, pause: Pause) -> tuple[str, StepResult]:
        """Let a wait be over."""
        name = pause.step_id
        known = self.recorded.get(name)
        self.told[name] = {"answer": RECORDED if known is not None else WAIT}
        if known is not None:
            return name, known
        if pause.wanted is not None:
            self.unknown.add(name)  # nobody knows which event will come
        return name, StepResult(SUCCEEDED, pause.output)


def rehearse(
    plan: Plan,
    request: ReplayRequested,
    recorded: Mapping[str, Mapping[str, Any]],
    again: Collection[str] = (),
) -> dict[str, Any]:
    """Say what a replay would do.

    Args:
        plan: The version that is to run.
        request: The replay; results in it stay as they are and are told as recorded.
        recorded: Result by step, or item of a loop, in the short form of the state; also failures.
        again: Steps that are to be called though they have an answer.

    Returns:
        `{status, error, would_call, steps: {name: {status, certain, …}}}`.

    Raises:
        CorruptEvent: The request cannot be read.
    """
    run = _Run(plan, {name: decode_result(told) for name, told in recorded.items()}, again)
    execution = replace(execution_of(request, plan), parallel=True)
    finished = _play(run, execution, start(plan, execution, request.requested_at_us), request)
    doubtful = _doubtful(plan, run.unknown)
    steps = _steps(run, finished, execution, doubtful)
    certain = finished is not None and not doubtful
    return {
        "status": finished.status if certain and finished is not None else "undetermined",
        "error": _error(finished) if certain else None,
        "would_call": sum(step.get("answer") == WOULD_CALL for step in steps.values()),
        "steps": steps,
    }


def _play(
    run: _Run, execution: Execution, after: Advance, request: ReplayRequested
) -> ExecutionFinished | None:
    """Answer what is asked until nothing is; None where it goes on for too long."""
    known = execution
    waiting: list[RequestStep | Pause] = [*after.commands, *after.pauses]
    while after.finished is None and waiting and len(run.told) < STEPS_MAX:
        asked = waiting.pop(0)
        name, result = run.waited(asked) if isinstance(asked, Pause) else run.answer(asked)
        after = advance(run.plan, known, name, result, request.requested_at_us)
        known = known.with_results({name: result})
        waiting += [*after.commands, *after.pauses]
    return after.finished


def _steps(
    run: _Run,
    finished: ExecutionFinished | None,
    execution: Execution,
    doubtful: Collection[str],
) -> dict[str, dict[str, Any]]:
    ends: dict[str, Any] = orjson.loads(finished.steps) if finished is not None else {}
    found: dict[str, dict[str, Any]] = {}
    for name in (*run.plan.order, *(each for each in run.told if "#" in each)):
        told: dict[str, Any] = {**ends.get(name, {}), **run.told.get(name, {})}
        if name in execution.results:
            told["answer"] = RECORDED
        told.setdefault("status", SUCCEEDED if name in run.told else "waiting")
        told["certain"] = name.partition("#")[0] not in doubtful
        found[name] = told
    return found


def _doubtful(plan: Plan, unknown: Collection[str]) -> set[str]:
    """List what reads an output that nobody knows, and all that hangs on such a step."""
    found: set[str] = set()
    for name in plan.order:  # each stands after all that it needs
        reads = any(name in plan.readers[other] for other in unknown)
        if reads or any(other in found for other in plan.needs[name].all):
            found.add(name)
    return found


def _shown(params: bytes) -> Any:  # noqa: ANN401 - any JSON value
    if len(params) > PARAMS_SHOWN_MAX:
        return {"sha256": hashlib.sha256(params).hexdigest(), "bytes": len(params)}
    return orjson.loads(params)


def _error(finished: ExecutionFinished | None) -> dict[str, str] | None:
    if finished is None or finished.error is None:
        return None
    return {"code": finished.error.code, "message": finished.error.message}

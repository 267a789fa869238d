"""Compensation: when an execution fails, what was done is undone, the last step first."""

from collections.abc import Callable

from router.core.standing import SUCCEEDED, StepState
from router.core.state import Execution
from schemas.plan import Plan
from schemas.workflow import ActionStep


def compensate(
    plan: Plan,
    execution: Execution,
    states: dict[str, StepState],
    begin: Callable[[ActionStep], StepState],
) -> None:
    """Add the states of what compensates the steps that succeeded, up to one under way.

    One after the other, so that a later step is undone before what it was built on. One that fails
    does not keep the others from being tried; the execution's error stays the first.

    Args:
        plan: The workflow.
        execution: What is known.
        states: Of all other steps, every one settled; gets the new ones.
        begin: Makes a step's command, or its failure.
    """
    for name, undo in plan.undo:
        if states[name].status != SUCCEEDED:
            continue
        known = execution.results.get(undo)
        step = plan.steps[undo]
        if known is not None:
            states[undo] = StepState(known.status, result=known)
        elif isinstance(step, ActionStep):
            states[undo] = begin(step)
        if not states[undo].settled:
            return

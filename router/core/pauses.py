"""What becomes of a step that waits: until when, and what it gives then."""

from router.core.standing import READY, Pause, StepState, failed
from router.core.state import Execution
from schemas.events import rfc3339
from schemas.pauses import PAUSE_MAX_MS, DelayStep, moment_us, pause_ms
from schemas.template import Lookup, TemplateError, render
from schemas.workflow import Step

DELAY = "delay"


def pause_kind(step: Step) -> str | None:
    """Say in one word what a step waits for; None: it calls somebody."""
    return DELAY if isinstance(step, DelayStep) else None


def delay(step: DelayStep, execution: Execution, lookup: Lookup, now_us: int) -> StepState:
    """Say until when a delay lasts; a time that has passed is due at once."""
    try:
        if step.until is not None:
            due_us = moment_us(render(step.until, lookup))
        else:
            due_us = now_us + pause_ms(render(step.duration, lookup)) * 1_000
    except TemplateError as error:
        return failed(error.code, f"{step.id}: {error}")
    except ValueError as error:
        return failed("bad_delay", f"{step.id}: {error}.")
    key = execution.effect_key(step.id)
    if due_us - now_us > PAUSE_MAX_MS * 1_000:
        # Decided by the clock, so it has to come as a result: a second look later may differ.
        why = ("delay_too_long", f"{step.id}: {rfc3339(due_us)} is more than 366 days ahead.")
        return StepState(READY, pause=Pause(step.id, now_us, key, now_us, error=why))
    due_us = max(due_us, now_us)
    until = {"until": rfc3339(due_us)}
    return StepState(READY, pause=Pause(step.id, due_us, key, now_us, output=until))

"""What becomes of a step that waits: until when, and what it gives then."""

from collections.abc import Mapping

from msgspec.structs import replace

from router.core.standing import FAILED, FALSE, READY, TRUE, Pause, StepState, Wanted, failed
from router.core.state import Execution, StepResult
from schemas.events import rfc3339
from schemas.pauses import PAUSE_MAX_MS, DelayStep, WaitEventStep, moment_us, pause_ms
from schemas.template import Lookup, TemplateError, as_text, render, resolve

DELAY, EVENT = "delay", "event"


def pause(
    step: DelayStep | WaitEventStep, execution: Execution, lookup: Lookup, now_us: int
) -> StepState:
    """Say until when a step waits, and for what."""
    if isinstance(step, DelayStep):
        return delay(step, execution, lookup, now_us)
    return wait_event(step, execution, lookup, now_us)


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


def wait_event(step: WaitEventStep, execution: Execution, lookup: Lookup, now_us: int) -> StepState:
    """Say for which event a step waits; its templates are filled in now."""
    try:
        subject = None if step.subject is None else as_text(render(step.subject, lookup))
        match = tuple((path, render(value, lookup)) for path, value in step.match.items())
        bindings = step.filter.bindings.values() if step.filter is not None else ()
        values = {found.source: resolve(found, lookup) for found in bindings}
    except TemplateError as error:
        return failed(error.code, f"{step.id}: {error}")
    due_us = now_us + step.timeout_ms * 1_000
    goes_on = step.branches or step.on_timeout == "continue"
    message = f"{step.id}: no event {step.event_type} that fits came until {rfc3339(due_us)}."
    return StepState(
        READY,
        pause=Pause(
            step.id,
            due_us,
            execution.effect_key(step.id),
            now_us,
            output={"timed_out": True, "event": None},
            error=None if goes_on else ("wait_timeout", message),
            wanted=Wanted(step.event_type, subject, match, values),
        ),
    )


def waited(step: WaitEventStep, result: StepResult) -> StepResult:
    """Turn the result of a wait into the choice of a branch, where it has branches."""
    if not step.branches or result.status == FAILED:
        return result
    came = isinstance(result.output, Mapping) and not result.output.get("timed_out")
    return replace(result, status=TRUE if came else FALSE)

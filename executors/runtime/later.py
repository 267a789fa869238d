"""Sends a step to its next attempt by a timer, where that is too far away to be waited for."""

from executors.core.result import Carried, tried_again
from schemas import codec
from schemas.events import Envelope, RequestStep, StepWaiting, rfc3339
from schemas.topics import EXECUTIONS
from wire.bus import Record, Stored
from wire.due import publish_at


def later(stored: Stored, command: RequestStep, carried: Carried, now_us: int) -> list[Record]:
    """Build the timer that brings a command back, and the fact that its step waits.

    Args:
        stored: The command as it was read.
        command: What it says.
        carried: Its attempts until now; `later_ms` says when to go on.
        now_us: UTC, microseconds.
    """
    due_us = now_us + (carried.later_ms or 0) * 1_000
    number = len(carried.attempts) + 1
    name = f"{command.execution_id}/{command.step_id}/{command.loop_index}/retry/{number}"
    again = Record(
        stored.place.topic,
        stored.key,
        codec.encode(tried_again(command, carried)),
        list(stored.headers.items()),
    )
    waiting = StepWaiting(
        command.workspace_id,
        command.execution_id,
        command.step_id,
        command.loop_index,
        "retry",
        due_us,
        f"attempt {number} of {command.max_attempts} at {rfc3339(due_us)}, after"
        f" {carried.attempts[-1].code or carried.attempts[-1].outcome}",
        now_us,
    )
    envelope = Envelope(
        f"{name}/waiting", "nhood.step.waiting", "/executors", command.workspace_id, now_us
    )
    fact = Record(
        EXECUTIONS, command.execution_id.encode(), codec.encode(waiting), envelope.headers()
    )
    return [publish_at(due_us, again, name, command.workspace_id, now_us), fact]

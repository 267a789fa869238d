"""Where a step of an execution stands, and what it waits for."""

from collections.abc import Mapping

from msgspec import Struct

from router.core.state import StepResult
from schemas.events import Payload, RequestStep
from schemas.template import Path

WAITING, READY, SKIPPED = "waiting", "ready", "skipped"
SUCCEEDED, FAILED, TRUE, FALSE = "succeeded", "failed", "true", "false"


class Wanted(Struct, frozen=True):
    """The event that a step waits for.

    Attributes:
        match: Pairs of a path in its payload and the value that has to stand there.
        values: Template of the filter -> its value in the execution.
    """

    event_type: str
    subject: str | None
    match: tuple[tuple[Path, object], ...]
    values: Mapping[str, object]


class Pause(Struct, frozen=True):
    """A step that waits for a time, or for an event until that time.

    Attributes:
        due_us: Until when: UTC, microseconds.
        wanted: The event; or None.
        output: What the step gives then, as a JSON value; or
        error: Why it fails then: code and sentence.
        effect_key: Names this pause, as an effect is named.
        requested_at_us: When it began.
        state: What rides along.
    """

    step_id: str
    due_us: int
    effect_key: str
    requested_at_us: int
    output: object = None
    error: tuple[str, str] | None = None
    state: Payload = Payload(b"")
    wanted: Wanted | None = None


class StepState(Struct, frozen=True):
    """Where a step stands.

    Attributes:
        status: One of the words in the module's drawing.
        reason: Why it was skipped: not_chosen, upstream_failed or upstream_skipped.
        result: What is carried on, where it has a result.
        command: Where it is ready: what to send; or
        pause: Where it is ready: what it waits for; or
        items: Of a loop: its items under way, each ready with a command (`router.core.loops`).
        size: Of a loop: how many items it has.
    """

    status: str
    reason: str = ""
    result: StepResult | None = None
    command: RequestStep | None = None
    pause: Pause | None = None
    items: "dict[str, StepState] | None" = None
    size: int = 0

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status not in (WAITING, READY)


def failed(code: str, message: str) -> StepState:
    """Build the state of a step that failed before anything was called."""
    return StepState(FAILED, result=StepResult(FAILED, error={"code": code, "message": message}))

"""What is known of an execution, and how it rides in commands and results.

The state is a set of results that only grows: the union of what a record carries and what is
remembered is always right, in whatever order and however often records come (ADR 0001).
"""

from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct, field
from msgspec.structs import replace

from schemas.errors import CorruptEvent
from schemas.events import Payload
from schemas.ids import effect_key
from schemas.plan import Plan
from schemas.workflow import ConditionStep

STATE_BYTES_MAX = 6 * 1024 * 1024  # a command must fit into a record, beside its parameters
_FORMAT = 1


class StepResult(Struct, frozen=True):
    """How a step ended, as later steps see it.

    Attributes:
        status: succeeded, failed; for conditions also true, false.
        output: The vendor's answer, or a condition's operands.
        error: {code, message} where it failed.
        counts: Of a loop: items, how many succeeded, how many failed.
    """

    status: str
    output: Any = None
    error: Mapping[str, str] | None = None
    vendor_id: str | None = None
    counts: tuple[int, int, int] | None = None

    def differs(self, later: "StepResult") -> bool:
        """Say whether another result of the same step tells another end; outputs may be cut."""
        if (self.status, self.error) != (later.status, later.error):
            return True
        return self.output is not None and self.output != later.output


class Execution(Struct, frozen=True):
    """One run of one workflow version.

    Attributes:
        generation: 0, or the number of the replay that started it.
        results: Step id -> result, for every step that has one.
        parallel: Whether other commands of this execution may be under way; then what a record
            carries is not all that is known.
        keys: Version and generation of which effect keys are made; None: its own. A replay that
            repairs has those of the execution that it repairs.
    """

    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    mode: str
    user: str | None
    event_id: str
    generation: int
    payload: Any
    results: Mapping[str, StepResult] = field(default_factory=dict)
    parallel: bool = False
    traceparent: str | None = None
    keys: tuple[int, int] | None = None

    def with_results(self, results: Mapping[str, StepResult]) -> "Execution":
        """Add results; one that is there already stays as it is."""
        return replace(self, results={**results, **self.results})

    def effect_key(self, step_id: str, loop_index: int = 0) -> str:
        """Name what a step does (`schemas.ids.effect_key`)."""
        number, generation = self.keys or (self.version, self.generation)
        version = f"{self.workflow_id}@{number}"
        root = f"{self.event_id}#{generation}"
        return effect_key(self.workspace_id, root, version, step_id, loop_index)


def encode_result(result: StepResult) -> dict[str, Any]:
    """Write a result in the short form of the state."""
    body: dict[str, Any] = {"s": result.status}
    if result.output is not None:
        body["o"] = result.output
    if result.error is not None:
        body["e"] = dict(result.error)
    if result.vendor_id is not None:
        body["i"] = result.vendor_id
    if result.counts is not None:
        body["n"] = result.counts
    return body


def decode_result(body: Mapping[str, Any]) -> StepResult:
    """Read the short form."""
    counts = body.get("n")
    found = StepResult(body["s"], body.get("o"), body.get("e"), body.get("i"))
    return found if counts is None else replace(found, counts=tuple(counts))


def encode_state(execution: Execution) -> Payload:
    """Write what has to ride along."""
    body = {
        "f": _FORMAT,
        "mode": execution.mode,
        "user": execution.user,
        "event": execution.event_id,
        "gen": execution.generation,
        "par": execution.parallel,
        "in": execution.payload,
        "res": {name: encode_result(result) for name, result in execution.results.items()},
        "trace": execution.traceparent,
    }
    if execution.keys is not None:
        body["keys"] = execution.keys
    return Payload(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS))


def decode_state(
    payload: Payload, workspace_id: str, execution_id: str, workflow_id: str, version: int
) -> Execution:
    """Read what a result carries.

    Raises:
        CorruptEvent: `bad_state`.
    """
    try:
        body = orjson.loads(payload.data)
        keys = body.get("keys")
        return Execution(
            workspace_id,
            execution_id,
            workflow_id,
            version,
            body["mode"],
            body["user"],
            body["event"],
            body["gen"],
            body["in"],
            {name: decode_result(result) for name, result in body["res"].items()},
            body["par"],
            body["trace"],
            None if keys is None else (keys[0], keys[1]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CorruptEvent(
            "The state that a step's result carries cannot be read.",
            code="bad_state",
            detail=str(error),
        ) from error


def prune(execution: Execution, plan: Plan) -> Execution:
    """Drop outputs that no step without a result can still read, and items of loops.

    What conditions decided on is told at the end. What became of an item is remembered; it does
    not ride.
    """
    open_steps = plan.steps.keys() - execution.results.keys()
    kept = {
        name: result
        if result.output is None
        or plan.readers[name] & open_steps
        or isinstance(plan.steps[name], ConditionStep)
        else replace(result, output=None)
        for name, result in execution.results.items()
        if name in plan.steps
    }
    return replace(execution, results=kept)

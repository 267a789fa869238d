"""Builds what the tables of `advance` are made of."""

import orjson

from router.core.advance import Advance
from router.core.state import Execution, StepResult, decode_state
from schemas.plan import Plan, compile_workflow

NOW = 1_790_000_000_000_000


def plan_of(*steps: dict, **more: object) -> Plan:
    trigger = {"type": "webhook", "path": "/x"}
    return compile_workflow({"name": "W", "trigger": trigger, "steps": list(steps), **more}, None)


def call(step_id: str, **more: object) -> dict:
    return {"id": step_id, "provider": "slack", "action": "send_message", **more}


def execution_with(payload: object, **more: object) -> Execution:
    return Execution("ws_1", "ex_1", "wf_1", 1, "test", None, "ev_1", 0, payload, **more)


def ids(after: Advance) -> list[str]:
    return [command.step_id for command in after.commands]


def ok(output: object = None) -> StepResult:
    return StepResult("succeeded", output)


FAILED = StepResult("failed", error={"code": "channel_not_found", "message": "No such channel."})


def carried(after: Advance) -> Execution:
    """What the last command carries, read back from its bytes."""
    state = (*after.pauses, *after.commands)[-1].state
    return decode_state(state, "ws_1", "ex_1", "wf_1", 1)


def ended(after: Advance) -> dict:
    assert after.finished is not None
    return orjson.loads(after.finished.steps)

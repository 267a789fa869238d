"""The workflow language: what a developer writes, checked whole, with every error at once.

    Workflow
    ├── trigger  one of `schemas.starts`
    └── steps    ActionStep | ConditionStep | DelayStep | ForEachStep | WaitEventStep, which
                 `schemas.plan` orders

`schemas.plan.compile_workflow` reads and orders a workflow: control calls it at save, the router on
what was saved.
The JSON Schema for editors is `schemas/workflow.schema.json`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from schemas.condition import Condition, compile_condition
from schemas.errors import InvalidInput, Problem
from schemas.loops import LOOP_FIELDS, ForEachStep, read_for_each
from schemas.pauses import PAUSE_MAX_MS, DelayStep, WaitEventStep, read_delay, read_wait
from schemas.reading import Reader
from schemas.starts import Trigger, read_trigger
from schemas.template import Reference, TemplateError, Text, compile_value, references

STEPS_MAX = 500  # the state of an execution rides in its commands
ID_MAX = 64  # characters of a step id
ATTEMPTS_DEFAULT = 4
ATTEMPTS_MAX = 20
TIMEOUT_DEFAULT_MS = 30_000
TIMEOUT_MAX_MS = 15 * 60_000
RETRY_DELAY_DEFAULT_MS = 500
RETRY_MAX_DELAY_DEFAULT_MS = 30_000
RETRY_DELAY_MAX_MS = 24 * 3600_000
ORDERED_GAP_MAX_MS = 15 * 60_000  # of a step with an order key, which holds up those behind it

_ID = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*$")
_TYPES = ("action", "condition", "delay", "for_each", "wait_event")


class Actions(Protocol):
    """What a workflow is checked against: the catalogue of providers."""

    def check_action(self, provider: str, action: str, params: Mapping[str, Any]) -> list[Problem]:
        """Say what is wrong with calling this action so; places are relative to the step."""
        ...

    def check_look_up(self, provider: str, action: str) -> list[Problem]:
        """Say what is wrong with `on_unknown: check`; places are relative to the step."""
        ...

    def check_trigger(self, provider: str, event: str) -> list[Problem]:
        """Say what is wrong with waiting for this event; places are relative to the trigger."""
        ...


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how far apart a step is tried; the gap doubles from `delay_ms`."""

    max_attempts: int = ATTEMPTS_DEFAULT
    delay_ms: int = RETRY_DELAY_DEFAULT_MS
    max_delay_ms: int = RETRY_MAX_DELAY_DEFAULT_MS


@dataclass(frozen=True, slots=True)
class ActionStep:
    """Calls one action of one provider; `config` is compiled (`schemas.template`).

    Attributes:
        timeout_ms: For one attempt.
        deadline_ms: For the whole step, from the moment it is ready; None: as long as it takes.
        on_error: fail; continue: what follows runs; branch: the steps of `rescue` run.
        compensate: What undoes it when the execution fails.
    """

    id: str
    provider: str
    action: str
    config: Mapping[str, Any]
    depends_on: tuple[str, ...] | None = None
    retry: Retry = field(default_factory=Retry)
    timeout_ms: int = TIMEOUT_DEFAULT_MS
    deadline_ms: int | None = None
    on_error: str = "fail"
    rescue: tuple[str, ...] = ()
    compensate: "ActionStep | None" = None
    on_unknown: str = "retry"
    order_key: Text | None = None
    user: Text | None = None
    connection: str | None = None

    @property
    def references(self) -> Iterator[Reference]:
        """Every template of the step."""
        yield from references(dict(self.config))
        for text in (self.order_key, self.user):
            if text is not None:
                yield from text.references


@dataclass(frozen=True, slots=True)
class ConditionStep:
    """Chooses between the steps named in `then` and those in `otherwise` (JSON: `else`)."""

    id: str
    condition: Condition
    then: tuple[str, ...] = ()
    otherwise: tuple[str, ...] = ()
    depends_on: tuple[str, ...] | None = None

    @property
    def references(self) -> Iterator[Reference]:
        """Every template of the condition; bare `steps.x` counts too."""
        yield from self.condition.bindings.values()
        if "steps" in self.condition.bare:
            for name in re.findall(r"\bsteps\.([A-Za-z_]\w*)", self.condition.source):
                yield Reference(f"steps.{name}", ("steps", name))


Step = ActionStep | ConditionStep | DelayStep | ForEachStep | WaitEventStep


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow that holds together in itself; its order is checked by `schemas.plan`.

    Attributes:
        timeout_ms: How long an execution may last; None: as long as it takes.
    """

    name: str
    trigger: Trigger
    steps: tuple[Step, ...]
    description: str = ""
    timeout_ms: int | None = None


def read_workflow(
    document: object, actions: Actions | None, problems: list[Problem]
) -> Workflow | None:
    """Read a workflow as far as it can be read.

    Args:
        document: The JSON value as sent.
        actions: The catalogue; None for a version that was checked when it was saved.
        problems: Gets every problem with its place.

    Returns:
        The workflow, or None where trigger or a step could not be made out; with problems noted,
        it serves only to look for more of them.
    """
    root = Reader(document, "", problems)
    root.known("$schema", "name", "description", "trigger", "steps", "timeout")
    name = root.text("name", required=True) or ""
    description = root.text("description", longest=2_000) or ""
    timeout_ms = root.optional_ms("timeout", PAUSE_MAX_MS)
    trigger = read_trigger(root, actions)
    steps = _steps(root, actions)
    if trigger is None or not steps:
        return None
    return Workflow(name, trigger, steps, description, timeout_ms)


def invalid_workflow(problems: list[Problem]) -> InvalidInput:
    """Build the error that tells all problems of a workflow."""
    count = len(problems)
    things = "one thing is" if count == 1 else f"{count} things are"
    return InvalidInput(
        f"The workflow was not saved: {things} wrong.", problems=problems, code="invalid_workflow"
    )


def _steps(root: Reader, actions: Actions | None) -> tuple[Step, ...]:
    listed = root.body.get("steps")
    if not isinstance(listed, list) or not listed:
        root.note("steps", "must be a list with at least one step", "", "missing_field")
        return ()
    if len(listed) > STEPS_MAX:
        root.note("steps", f"has more than {STEPS_MAX} steps", "Split the workflow.", "too_many")
        return ()
    taken: dict[str, int] = {}
    explicit = {item["id"] for item in listed if isinstance(item, dict) and "id" in item}
    steps: list[Step] = []
    for index, item in enumerate(listed):
        reader = Reader(item, f"steps[{index}]", root.problems)
        step_id = _step_id(reader, explicit, taken)
        if step_id in taken:
            reader.note("id", f"{step_id} is the id of steps[{taken[step_id]}] too", "", "same_id")
        taken[step_id] = index
        step = _step(reader, step_id, actions)
        if step is not None:
            steps.append(step)
    return tuple(steps) if len(steps) == len(listed) else ()


def _step_id(reader: Reader, explicit: set[str], taken: Mapping[str, int]) -> str:
    """Take the id given, or make one from what the step does: `slack_send_message`, `…_2`."""
    if "id" in reader.body:
        given = reader.text("id", longest=ID_MAX) or ""
        if given and not _ID.match(given):
            reader.note("id", "may hold letters, digits, _ and - only", "", "bad_id")
        return given
    provider, action = _provider_and_action(reader.body)
    kind = str(reader.body.get("type"))
    named = kind if kind in _TYPES else "condition"
    base = f"{provider}_{action}" if provider and action else named
    base = re.sub(r"[^A-Za-z0-9_]", "_", base)[: ID_MAX - 4]
    candidate, number = base, 1
    while candidate in explicit or candidate in taken:
        number += 1
        candidate = f"{base}_{number}"
    return candidate


def _provider_and_action(body: Mapping[str, Any]) -> tuple[str, str]:
    """Read `provider` + `action`, or both in one: `"action": "slack.send_message"`."""
    provider, action = str(body.get("provider") or ""), str(body.get("action") or "")
    if not provider and "." in action:
        provider, _, action = action.partition(".")
    return provider, action


def _step(reader: Reader, step_id: str, actions: Actions | None) -> Step | None:
    kind = reader.body.get("type", _kind(reader.body))
    kind = reader.choice("type", _TYPES, str(kind))
    if kind == "condition":
        return _condition_step(reader, step_id)
    if kind == "delay":
        return read_delay(reader, step_id)
    if kind == "for_each":
        reader.known(*_ACTION_FIELDS, *LOOP_FIELDS)
        return read_for_each(reader, _action_step(reader, step_id, actions))
    if kind == "wait_event":
        return read_wait(reader, step_id)
    if kind != "action":
        return None
    reader.known(*_ACTION_FIELDS, "compensate")
    step = _action_step(reader, step_id, actions)
    return replace(step, compensate=_compensation(reader, step, actions))


def _kind(body: Mapping[str, Any]) -> str:
    """Tell a step that does not say what it is."""
    if "condition" in body:
        return "condition"
    return "for_each" if "items" in body else "action"


def _condition_step(reader: Reader, step_id: str) -> ConditionStep:
    reader.known("id", "name", "type", "condition", "then", "else", "depends_on")
    condition = reader.condition("condition", required=True)
    then, otherwise = reader.ids("then") or (), reader.ids("else") or ()
    if not then and not otherwise:
        reader.note("then", "names no step, nor does else", 'Write "then": ["step_id"].')
    for both in set(then) & set(otherwise):
        reader.note("else", f"{both} stands in then as well", "A step belongs to one branch.")
    found = condition or compile_condition("true")  # the problem is noted, the order still counts
    return ConditionStep(step_id, found, then, otherwise, reader.ids("depends_on"))


_ACTION_FIELDS = (
    *("id", "name", "type", "provider", "action", "config", "depends_on", "retry", "timeout"),
    *("on_error", "on_unknown", "order_key", "user", "connection", "deadline"),
)
_UNDO_FIELDS = (
    *("provider", "action", "config", "retry", "timeout", "on_unknown", "order_key", "user"),
    "connection",
)
_INHERITED = ("provider", "user", "connection", "order_key")


def _action_step(reader: Reader, step_id: str, actions: Actions | None) -> ActionStep:
    provider, action = _provider_and_action(reader.body)
    if not provider or not action:
        reader.note(
            "action",
            "says not which action of which provider",
            'Write "provider": "slack", "action": "send_message".',
            "missing_field",
        )
    config = reader.body.get("config", {})
    if not isinstance(config, dict):
        reader.note("config", "must be an object", "", "wrong_type")
        config = {}
    if actions is not None and provider and action:
        for problem in actions.check_action(provider, action, config):
            reader.note(problem.place, problem.message, problem.mend, problem.code)
    try:
        compiled = compile_value(config)
    except TemplateError as error:
        reader.note("config", str(error), "See docs/workflows.md, templates.", error.code)
        compiled = {}
    retry = _retry(reader)
    if "order_key" in reader.body and max(retry.delay_ms, retry.max_delay_ms) > ORDERED_GAP_MAX_MS:
        reader.note(
            "retry.max_delay",
            "is over 15 minutes beside an order_key",
            "Later steps of the same order_key wait meanwhile: shorten it, or leave order_key out.",
            "bad_duration",
        )
    on_unknown = reader.choice("on_unknown", ("retry", "fail", "check"), "retry")
    if on_unknown == "check" and actions is not None and provider and action:
        for problem in actions.check_look_up(provider, action):
            reader.note(problem.place, problem.message, problem.mend, problem.code)
    word, rescue = _on_error(reader)
    return ActionStep(
        id=step_id,
        provider=provider,
        action=action,
        config=compiled if isinstance(compiled, dict) else {},
        depends_on=reader.ids("depends_on"),
        retry=retry,
        timeout_ms=reader.duration_ms("timeout", TIMEOUT_DEFAULT_MS, TIMEOUT_MAX_MS),
        deadline_ms=reader.optional_ms("deadline", PAUSE_MAX_MS),
        on_error=word,
        rescue=rescue,
        on_unknown=on_unknown,
        order_key=reader.template("order_key"),
        user=reader.template("user"),
        connection=reader.text("connection"),
    )


def _on_error(reader: Reader) -> tuple[str, tuple[str, ...]]:
    """Read `fail`, `continue`, or the steps that take over."""
    value = reader.body.get("on_error", "fail")
    if value in ("fail", "continue"):
        return str(value), ()
    ids = reader.ids("on_error") or ()
    if not ids:
        reader.note("on_error", "names no step", 'Write "fail", "continue" or ["step_id"].')
    return "branch", ids


def _compensation(reader: Reader, step: ActionStep, actions: Actions | None) -> ActionStep | None:
    """Read what undoes a step: an action, as a rule of the same provider and account."""
    value = reader.body.get("compensate")
    if value is None:
        return None
    place = reader.at("compensate")
    if isinstance(value, dict):
        Reader(value, place, reader.problems).known(*_UNDO_FIELDS)
        above = {"provider": step.provider, **reader.body}
        if "." in str(value.get("action")):
            del above["provider"]
        value = {name: above[name] for name in _INHERITED if name in above} | value
    return _action_step(Reader(value, place, reader.problems), undo_id(step.id), actions)


def undo_id(step_id: str) -> str:
    """Name the step that undoes one; no step that is written can be called so."""
    return f"{step_id}.compensate"


def _retry(reader: Reader) -> Retry:
    value = reader.body.get("retry")
    if value is None:
        return Retry()
    if isinstance(value, int) and not isinstance(value, bool):
        value = {"max_attempts": value}
    inner = Reader(value, reader.at("retry"), reader.problems)
    inner.known("max_attempts", "delay", "max_delay")
    return Retry(
        inner.whole("max_attempts", ATTEMPTS_DEFAULT, 1, ATTEMPTS_MAX),
        inner.duration_ms("delay", RETRY_DELAY_DEFAULT_MS, RETRY_DELAY_MAX_MS),
        inner.duration_ms("max_delay", RETRY_MAX_DELAY_DEFAULT_MS, RETRY_DELAY_MAX_MS),
    )

"""Which workflows an event starts: the definitions in memory, and one pure look-up."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from schemas.condition import Condition, ConditionError
from schemas.errors import InvalidInput
from schemas.events import (
    QUARANTINE_NOTE,
    TYPE_EXECUTE,
    TYPE_PROVIDER,
    TYPE_RELEASED,
    TYPE_SCHEDULE,
    TYPE_WEBHOOK,
    Envelope,
    Event,
    WorkflowVersion,
)
from schemas.incoming import ANY_MODE
from schemas.pauses import WaitEventStep
from schemas.plan import Plan, compile_workflow
from schemas.starts import (
    EventTrigger,
    ProviderTrigger,
    ScheduleTrigger,
    Trigger,
    WebhookTrigger,
    normal_path,
)
from schemas.template import MISSING, Reference, TemplateError, as_text, render, walk

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILTERED = (EventTrigger, ProviderTrigger)
EXECUTIONS_PER_EVENT_MAX = 100  # workflows that one event may start


@dataclass(frozen=True, slots=True)
class Compiled:
    """A workflow version, ready to run."""

    version: WorkflowVersion
    plan: Plan


@dataclass(frozen=True, slots=True)
class Matches:
    """What an event starts; `reason` says why nothing, where nothing."""

    workflows: tuple[Compiled, ...]
    reason: str = ""


@dataclass(slots=True)
class Definitions:
    """Every workflow version that the definitions topic holds.

    A version that cannot be compiled (a newer release wrote it) is kept as broken: events that
    would start it are rejected with the reason, never dropped.

    Attributes:
        awaited: Workspace and event type of every `wait_event` step there ever was.
    """

    versions: dict[tuple[str, int], Compiled] = field(default_factory=dict)
    current: dict[str, Compiled] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    awaited: set[tuple[str, str]] = field(default_factory=set)
    _by_workspace: dict[str, set[str]] = field(default_factory=dict)

    def put(self, key: str, version: WorkflowVersion | None) -> None:
        """Take in one record; None is a tombstone."""
        if version is None:
            self._forget(key)
            return
        compiled = self._compile(version)
        if compiled is None:
            return
        self.versions[version.workflow_id, version.version] = compiled
        if "@" not in key:
            self.current[version.workflow_id] = compiled
            self._by_workspace.setdefault(version.workspace_id, set()).add(version.workflow_id)

    def _compile(self, version: WorkflowVersion) -> Compiled | None:
        existing = self.versions.get((version.workflow_id, version.version))
        if existing is not None:
            return Compiled(version, existing.plan)
        try:
            plan = compile_workflow(orjson.loads(version.definition), None)
        except (InvalidInput, orjson.JSONDecodeError) as error:
            self.broken[version.workflow_id] = str(error)
            return None
        self.broken.pop(version.workflow_id, None)
        for step in plan.workflow.steps:
            if isinstance(step, WaitEventStep):
                self.awaited.add((version.workspace_id, step.event_type))
        return Compiled(version, plan)

    def _forget(self, key: str) -> None:
        workflow_id, at, number = key.partition("@")
        if at:
            self.versions.pop((workflow_id, int(number)), None)
            return
        gone = self.current.pop(workflow_id, None)
        if gone is not None:
            self._by_workspace[gone.version.workspace_id].discard(workflow_id)

    def of_workspace(self, workspace_id: str) -> list[Compiled]:
        """The current versions of a workspace, in the order of their ids."""
        return [self.current[name] for name in sorted(self._by_workspace.get(workspace_id, ()))]


def match(envelope: Envelope, event: Event, payload: object, known: Definitions) -> Matches:
    """Say which workflows an event starts.

    Args:
        envelope: Its attributes; `workspace` bounds the search.
        event: The event; mode `any` matches workflows of both modes.
        payload: Its body as JSON value.
        known: All definitions.
    """
    quarantine = event.headers.get(QUARANTINE_NOTE)
    if quarantine is not None and envelope.type == TYPE_PROVIDER:
        return Matches((), f"Quarantined: {quarantine}; let the customer connect it.")
    candidates = known.of_workspace(envelope.workspace)
    if not candidates:
        return Matches((), f"Workspace {envelope.workspace} has no workflows.")
    if envelope.type in (TYPE_EXECUTE, TYPE_SCHEDULE, TYPE_RELEASED):
        return _named(envelope, event, candidates)
    found, near = [], []
    for compiled in candidates:
        reason = _refusal(compiled, envelope, event, payload)
        if reason is None:
            found.append(compiled)
        elif reason:
            near.append(f"{compiled.version.name}: {reason}")
    if found:
        return Matches(tuple(found[:EXECUTIONS_PER_EVENT_MAX]))
    what = f"type {envelope.type}"
    if envelope.type == TYPE_WEBHOOK:
        what = f"path {envelope.subject}"
    elif envelope.type == TYPE_PROVIDER:
        what = f"the event {envelope.subject}"
    return Matches((), "; ".join(near[:10]) or f"No workflow of the workspace listens to {what}.")


def _named(envelope: Envelope, event: Event, candidates: list[Compiled]) -> Matches:
    for compiled in candidates:
        if compiled.version.workflow_id == envelope.subject:
            if compiled.version.status == "deleted":
                return Matches((), f"Workflow {envelope.subject} was deleted.")
            if event.mode not in (ANY_MODE, compiled.version.mode):
                return Matches((), f"Workflow {envelope.subject} is not of mode {event.mode}.")
            scheduled = isinstance(compiled.plan.workflow.trigger, ScheduleTrigger)
            if envelope.type == TYPE_SCHEDULE and not scheduled:
                return Matches((), f"Workflow {envelope.subject} has no schedule any more.")
            return Matches((compiled,))
    return Matches((), f"The workspace has no workflow {envelope.subject}.")


def _refusal(compiled: Compiled, envelope: Envelope, event: Event, payload: object) -> str | None:
    """None: it starts. Else why not; empty where it was never meant for this event."""
    trigger = compiled.plan.workflow.trigger
    if not _listens(trigger, envelope):
        return ""
    if compiled.version.status != "active":
        return f"is {compiled.version.status}"
    if event.mode not in (ANY_MODE, compiled.version.mode):
        return f"is of mode {compiled.version.mode}, the event of mode {event.mode}"
    condition = trigger.filter if isinstance(trigger, _FILTERED) else None
    return _filtered(condition, payload) if condition is not None else None


def _listens(trigger: Trigger, envelope: Envelope) -> bool:
    if isinstance(trigger, WebhookTrigger):
        subject = normal_path(envelope.subject or "")
        return envelope.type == TYPE_WEBHOOK and trigger.path == subject
    if isinstance(trigger, ProviderTrigger):
        return envelope.type == TYPE_PROVIDER and trigger.takes(envelope.subject or "")
    return isinstance(trigger, EventTrigger) and trigger.event_type == envelope.type


def _filtered(condition: Condition, payload: object) -> str | None:
    """Say which part of a filter an event fails; None: it passes."""

    def look(reference: Reference) -> Any:  # noqa: ANN401 - any JSON value
        return payload_lookup(payload, reference)

    try:
        if condition.decide(look).value:
            return None
        part, decision = condition.first_false(look)
    except ConditionError as error:
        return f"filter failed: {error}"
    operands = orjson.dumps(dict(decision.operands)).decode()
    whole = "" if part is condition else f", a part of {condition.source}"
    return f"filter {part.source} is false with {operands}{whole}"


def payload_lookup(payload: object, reference: Reference) -> Any:  # noqa: ANN401 - any JSON value
    """Look a reference up in an event's payload alone (filters, the trigger's user)."""
    if reference.path[0] == "trigger":
        return walk(payload, reference.path[1:])
    return walk(payload, reference.path)


def user_of(event: Event, trigger: Trigger, payload: object) -> str | None:
    """Say whose accounts an execution uses: the event's user, else the trigger's template."""
    if event.user:
        return event.user
    if trigger.user is None:
        return None
    try:
        found = render(trigger.user, lambda reference: payload_lookup(payload, reference))
    except TemplateError:
        return None
    return None if found is MISSING else as_text(found) or None


def body_value(data: bytes, content_type: str) -> object:
    """Read an event's body as JSON value: JSON, a form as {name: text | [text]}, else text.

    Raises:
        ValueError: The content type says JSON and it is none.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith("json") or (not kind and data[:1] in (b"{", b"[")):
        return orjson.loads(data) if data else None
    if kind == "application/x-www-form-urlencoded":
        fields: Mapping[str, list[str]] = parse_qs(data.decode(), keep_blank_values=True)
        return {name: found[0] if len(found) == 1 else found for name, found in fields.items()}
    return data.decode(errors="replace")

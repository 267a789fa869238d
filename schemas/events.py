"""The records on the topics, as frozen values, and the CloudEvents envelope they travel in.

    Event            outside → ingest → router           a body, byte for byte
    WorkflowVersion  control → router, ingest            what to do with it
    RequestStep      router → executors                  call this action
    StepFinished     executors → router, control         what became of it
    CancelRequested  control → router                    stop this execution
    ReplayRequested  control → router                    run once more what was run before
    StepRemembered   router → router                     what cannot ride in commands
    EventOutcome, ExecutionStarted, ExecutionFinished    router → control
    StepWaiting      router, executors → control         a step waits, and until when
    Timer            router, executors → router          publish this at its time
    TriggerHeld, HeldDue                                 router → router
    ExecutionDue     router → router                     a time of an execution has come
    EventWait        router → router                     a step waits for an event
    ConnectionChanged                                    vault → whoever watches
    DeadLetter       whoever could not read a record

Field for field the same as `schemas/avro/*.avsc`, whose `doc`s say what each field means.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from msgspec import Struct, field

from schemas.errors import CorruptEvent

TYPE_WEBHOOK = "nhood.webhook"
TYPE_EXECUTE = "nhood.execute"
TYPE_SCHEDULE = "nhood.schedule"
TYPE_RELEASED = "nhood.released"
# Subject: provider and event, `github/issues.opened`.
TYPE_PROVIDER = "nhood.provider"
# A note of such an event: why it starts nothing.
QUARANTINE_NOTE = "nhood-quarantine"
PROVIDER_NOTE = "nhood-provider"
RESERVED_TYPE_PREFIX = "nhood."
CANCELLED = "#cancelled"
FINISHED = "#finished"


class Payload(Struct, frozen=True):
    """Content, plain (`key_id` is None) or sealed with an end customer's data key."""

    data: bytes
    content_type: str = "application/json"
    key_id: str | None = None


class Place(Struct, frozen=True):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class StepError(Struct, frozen=True):
    """Why a step or an execution failed: a code, a customer's and an operator's sentence."""

    code: str
    message: str
    detail: str = ""


class Event(Struct, frozen=True):
    """Something that happened outside; its name and time are in the envelope."""

    data: Payload
    user: str | None = None
    mode: str = "live"
    method: str | None = None
    query: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class WorkflowVersion(Struct, frozen=True):
    """One immutable version of a workflow; under the bare workflow id the current one."""

    workspace_id: str
    workflow_id: str
    version: int
    mode: str
    name: str
    status: str
    definition: bytes
    saved_at_us: int


class RequestStep(Struct, frozen=True):
    """Command: call one action of one provider."""

    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    step_id: str
    loop_index: int
    effect_key: str
    provider: str
    action: str
    params: Payload
    mode: str
    user: str | None
    connection_id: str | None
    order_key: str | None
    max_attempts: int
    retry_delay_ms: int
    retry_max_delay_ms: int
    timeout_ms: int
    on_unknown: str
    state: Payload
    requested_at_us: int
    attempts: bytes = b""
    deadline_us: int | None = None


class StepFinished(Struct, frozen=True):
    """What became of a step."""

    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    step_id: str
    loop_index: int
    effect_key: str
    provider: str
    action: str
    outcome: str
    output: Payload
    output_cut: bool
    vendor_id: str | None
    error: StepError | None
    attempts: bytes
    request: Payload
    response: Payload
    connection_id: str | None
    from_ledger: bool
    command: Place
    state: Payload
    requested_at_us: int
    started_at_us: int
    finished_at_us: int


class CancelRequested(Struct, frozen=True):
    """Somebody wants an execution to stop."""

    workspace_id: str
    execution_id: str
    reason: str
    requested_at_us: int


class ReplayRequested(Struct, frozen=True):
    """Command to the router: run a workflow once more with an event that was seen before."""

    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    replay_id: str
    replays: str | None
    generation: int
    effect_version: int
    effect_generation: int
    event_id: str
    event: Place
    event_time_us: int
    mode: str
    user: str | None
    input: Payload
    results: Payload
    requested_at_us: int


class StepRemembered(Struct, frozen=True):
    """What the router has to know of an execution besides what rides in its commands."""

    workspace_id: str
    execution_id: str
    step_id: str
    result: Payload
    at_us: int


class EventOutcome(Struct, frozen=True):
    """What became of one offset of the events topic."""

    workspace_id: str | None
    event_id: str | None
    event: Place
    outcome: str
    reason: str
    executions: Sequence[str]
    event_type: str | None
    subject: str | None
    mode: str | None
    event_time_us: int
    at_us: int
    repeats: Place | None = None


class ExecutionStarted(Struct, frozen=True):
    """An event started a workflow."""

    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    workflow_name: str
    mode: str
    user: str | None
    event_id: str
    event: Place
    generation: int
    event_time_us: int
    at_us: int
    replays: str | None = None
    replay_id: str | None = None
    effect_version: int | None = None
    effect_generation: int | None = None


class ExecutionFinished(Struct, frozen=True):
    """An execution has its end."""

    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    mode: str
    status: str
    error: StepError | None
    steps: bytes
    at_us: int


class ConnectionChanged(Struct, frozen=True):
    """A connection's state changed; `before` is None where it was made."""

    event_id: int
    workspace_id: str
    connection_id: str
    mode: str
    provider: str
    user: str
    label: str
    before: str | None
    after: str
    reason: str
    message: str
    version: int
    at_us: int


class Timer(Struct, frozen=True):
    """Publish this record at its time; see `Timer.avsc`."""

    workspace_id: str
    due_us: int
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    at_us: int


class ExecutionDue(Struct, frozen=True):
    """A time of an execution has come: `kind` is timeout or forget."""

    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    mode: str
    kind: str
    at_us: int


class TriggerHeld(Struct, frozen=True):
    """An event that a workflow's trigger holds back; `payload` is JSON."""

    workspace_id: str
    workflow_id: str
    version: int
    group: str
    event_id: str
    user: str | None
    mode: str
    generation: int
    traceparent: str | None
    payload: bytes
    at_us: int


class HeldDue(Struct, frozen=True):
    """A time of a group of held events has come: `kind` is release or forget."""

    workspace_id: str
    workflow_id: str
    version: int
    group: str
    event_id: str
    kind: str
    at_us: int


class StepWaiting(Struct, frozen=True):
    """A step waits: `kind` is delay, event or retry."""

    workspace_id: str
    execution_id: str
    step_id: str
    loop_index: int
    kind: str
    until_us: int | None
    detail: str
    at_us: int


class EventWait(Struct, frozen=True):
    """A step waits for an event; see `EventWait.avsc`."""

    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    step_id: str
    mode: str
    event_type: str
    subject: str | None
    match: bytes
    values: bytes
    finished: bytes
    until_us: int
    at_us: int


class DeadLetter(Struct, frozen=True, rename={"class_": "class"}):
    """A record that could not be read, as it was."""

    original: Place
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    workspace_id: str | None
    stage: str
    class_: str
    code: str
    reason: str
    attempts: int
    at_us: int


Record = (
    Event
    | WorkflowVersion
    | RequestStep
    | StepFinished
    | CancelRequested
    | ReplayRequested
    | StepRemembered
    | EventOutcome
    | ExecutionStarted
    | ExecutionFinished
    | ConnectionChanged
    | Timer
    | StepWaiting
    | ExecutionDue
    | TriggerHeld
    | HeldDue
    | EventWait
    | DeadLetter
)

AVRO_CONTENT_TYPE = "application/avro"
MINTED_HEADER = "ce_minted"


class Envelope(Struct, frozen=True):
    """CloudEvents 1.0 attributes in Kafka's binary mode, one header `ce_<attribute>` each.

    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
    `workspace`, `generation` and `minted` are extension attributes of ours; `traceparent` is W3C's
    header. `minted`: the id was made for this event alone, so nothing before can have had it.
    """

    id: str
    type: str
    source: str
    workspace: str
    time_us: int
    subject: str | None = None
    generation: int = 0
    traceparent: str | None = None
    content_type: str = AVRO_CONTENT_TYPE
    minted: bool = False

    def headers(self) -> list[tuple[str, bytes]]:
        """Give the record headers."""
        found = [
            ("ce_specversion", b"1.0"),
            ("ce_id", self.id.encode()),
            ("ce_type", self.type.encode()),
            ("ce_source", self.source.encode()),
            ("ce_time", rfc3339(self.time_us).encode()),
            ("ce_workspace", self.workspace.encode()),
            ("content-type", self.content_type.encode()),
        ]
        if self.subject is not None:
            found.append(("ce_subject", self.subject.encode()))
        if self.generation:
            found.append(("ce_generation", str(self.generation).encode()))
        if self.traceparent:
            found.append(("traceparent", self.traceparent.encode()))
        if self.minted:
            found.append((MINTED_HEADER, b"1"))
        return found

    @classmethod
    def parse(cls, headers: Mapping[str, bytes]) -> "Envelope":
        """Read the attributes of a record of ours.

        Raises:
            CorruptEvent: Where a required attribute is missing or cannot be read.
        """
        try:
            texts = {name: value.decode() for name, value in headers.items()}
        except UnicodeDecodeError as error:
            raise CorruptEvent("A header is not UTF-8 text.", code="bad_header") from error
        missing = [n for n in ("ce_id", "ce_type", "ce_source", "ce_workspace") if n not in texts]
        if missing:
            raise CorruptEvent(
                f"CloudEvents headers are missing: {', '.join(missing)}.", code="missing_attribute"
            )
        generation = texts.get("ce_generation", "0")
        if not generation.isdigit():
            raise CorruptEvent("ce_generation is not a whole number.", code="bad_header")
        return cls(
            id=texts["ce_id"],
            type=texts["ce_type"],
            source=texts["ce_source"],
            workspace=texts["ce_workspace"],
            time_us=parse_rfc3339(texts["ce_time"]) if "ce_time" in texts else 0,
            subject=texts.get("ce_subject"),
            generation=int(generation),
            traceparent=texts.get("traceparent"),
            content_type=texts.get("content-type", AVRO_CONTENT_TYPE),
        )


def rfc3339(time_us: int) -> str:
    """Write a time (UTC, microseconds) as CloudEvents wants it: `2026-01-31T08:00:00.000000Z`."""
    return f"{_whole_second(time_us // 1_000_000)}.{time_us % 1_000_000:06d}Z"


@lru_cache(maxsize=64)  # what is written at one time is mostly of the same second
def _whole_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_seconds(moment: datetime) -> str:
    """Write a time of UTC in whole seconds: `2026-01-31T08:00:00Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> int:
    """Read a time as microseconds, UTC.

    Raises:
        CorruptEvent: Where it is not RFC 3339 with a zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CorruptEvent(f"{text[:40]!r} is not an RFC 3339 time with a zone.", code="bad_time")
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + moment.microsecond

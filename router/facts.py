"""The records that tell of events, executions and steps; each named by what it tells of."""

from schemas import codec
from schemas.events import (
    Envelope,
    EventOutcome,
    ExecutionFinished,
    ExecutionStarted,
    Payload,
    Place,
    ReplayRequested,
    RequestStep,
    StepError,
    StepFinished,
)
from schemas.topics import EXECUTIONS, RESULTS
from wire.bus import Record
from wire.telemetry import ROUTER_EVENTS

_SOURCE = "/router"


def fact(record: ExecutionStarted | ExecutionFinished) -> Record:
    """Write a fact of an execution, keyed by it."""
    word = "started" if isinstance(record, ExecutionStarted) else "finished"
    name = record.execution_id
    envelope = Envelope(
        f"{name}/{word}", f"nhood.execution.{word}", _SOURCE, record.workspace_id, record.at_us
    )
    return Record(EXECUTIONS, name.encode(), codec.encode(record), envelope.headers())


def outcome_record(outcome: EventOutcome, name: str, workspace: str) -> Record:
    """Write what became of an event."""
    ROUTER_EVENTS.labels(outcome=outcome.outcome).inc()
    envelope = Envelope(f"{name}/outcome", "nhood.event.outcome", _SOURCE, workspace, outcome.at_us)
    return Record(EXECUTIONS, name.encode(), codec.encode(outcome), envelope.headers())


def version_gone(result: StepFinished | ReplayRequested, now: int) -> ExecutionFinished:
    """Build the end of an execution whose workflow nobody knows any more."""
    message = f"Version {result.version} of workflow {result.workflow_id} is not known any more."
    return ExecutionFinished(
        workspace_id=result.workspace_id,
        execution_id=result.execution_id,
        workflow_id=result.workflow_id,
        version=result.version,
        mode="",
        status="failed",
        error=StepError("workflow_version_gone", message),
        steps=b"{}",
        at_us=now,
    )


def no_provider(command: RequestStep) -> Record:
    """Answer a command that no executor could take: the provider's folder is gone."""
    message = f"There is no provider {command.provider!r} on this platform any more."
    finished = StepFinished(
        workspace_id=command.workspace_id,
        execution_id=command.execution_id,
        workflow_id=command.workflow_id,
        version=command.version,
        step_id=command.step_id,
        loop_index=command.loop_index,
        effect_key=command.effect_key,
        provider=command.provider,
        action=command.action,
        outcome="rejected",
        output=Payload(b""),
        output_cut=False,
        vendor_id=None,
        error=StepError("unknown_provider", message),
        attempts=b"[]",
        request=Payload(b"null"),
        response=Payload(b"null"),
        connection_id=None,
        from_ledger=False,
        command=Place("", -1, -1),
        state=command.state,
        requested_at_us=command.requested_at_us,
        started_at_us=command.requested_at_us,
        finished_at_us=command.requested_at_us,
    )
    envelope = Envelope(
        f"{command.execution_id}/{command.step_id}",
        "nhood.step.finished",
        _SOURCE,
        command.workspace_id,
        command.requested_at_us,
    )
    key = command.execution_id.encode()
    return Record(RESULTS, key, codec.encode(finished), envelope.headers())

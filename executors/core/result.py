"""What is written of a step once it has ended: from attempts and an outcome to a StepFinished."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from msgspec.structs import replace

from executors.core.outcome import Outcome, Rejected, Succeeded
from executors.core.request import Request
from schemas import codec
from schemas.events import Payload, Place, RequestStep, StepError, StepFinished

OUTPUT_BYTES_MAX = 256 * 1024  # larger outputs would ride through every later command
EXCERPT_CHARS_MAX = 4_096  # of a body in the timeline
# A state up to this size is kept in the ledger as well: cheaper than to encode the result twice.
KEPT_STATE_MAX = 2_048


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call, as the timeline tells it.

    Attributes:
        number: From 1.
        started_at_us: UTC, microseconds.
        duration_us: Until the answer was read.
        status: HTTP status; None: there was no answer.
        outcome: Kind of outcome in one word.
        code: The vendor's or our code, where it did not succeed.
        waited_ms: Gap before this attempt.
    """

    number: int
    started_at_us: int
    duration_us: int
    status: int | None
    outcome: str
    code: str
    waited_ms: int


@dataclass(frozen=True, slots=True)
class Carried:
    """All that is known when a step has ended.

    Attributes:
        request: The last request as JSON value: method, url, body excerpt; no credentials.
        response: The last answer: status, body excerpt.
        started_at_us: When the first attempt began: UTC, microseconds.
        later_ms: The step has not ended: its next attempt is this far away.
        dead_connection: The customer has to connect this one again; the step can wait for it.
    """

    outcome: Outcome
    attempts: Sequence[Attempt]
    request: Any
    response: Any
    connection_id: str | None
    started_at_us: int
    finished_at_us: int
    later_ms: int | None = None
    dead_connection: str | None = None


def read_attempts(data: bytes) -> list[Attempt]:
    """Read the attempts that a command brings along."""
    return [Attempt(**body) for body in orjson.loads(data)] if data else []


def waited_ms(attempts: Sequence[Attempt], now_us: int) -> int:
    """Say how long a step waited since its last attempt; 0 where there was none."""
    if not attempts:
        return 0
    return max(0, now_us - attempts[-1].started_at_us - attempts[-1].duration_us) // 1_000


def tried_again(command: RequestStep, carried: Carried) -> RequestStep:
    """Give the command for the attempts that are left."""
    return replace(command, attempts=orjson.dumps(list(carried.attempts)))


def step_finished(command: RequestStep, place: Place, carried: Carried) -> StepFinished:
    """Write the end of a step."""
    outcome = carried.outcome
    output, cut, vendor_id, error = b"", False, None, None
    if isinstance(outcome, Succeeded):
        output = orjson.dumps(outcome.output)
        vendor_id = outcome.vendor_id
        cut = len(output) > OUTPUT_BYTES_MAX
    else:
        error = StepError(outcome.code, outcome.message, outcome.detail)
    return StepFinished(
        workspace_id=command.workspace_id,
        execution_id=command.execution_id,
        workflow_id=command.workflow_id,
        version=command.version,
        step_id=command.step_id,
        loop_index=command.loop_index,
        effect_key=command.effect_key,
        provider=command.provider,
        action=command.action,
        outcome=outcome.kind,
        output=Payload(b"null" if cut else output),
        output_cut=cut,
        vendor_id=vendor_id,
        error=error,
        attempts=orjson.dumps(list(carried.attempts)),
        request=Payload(orjson.dumps(carried.request)),
        response=Payload(orjson.dumps(carried.response)),
        connection_id=carried.connection_id,
        from_ledger=False,
        command=place,
        state=command.state,
        requested_at_us=command.requested_at_us,
        started_at_us=carried.started_at_us,
        finished_at_us=carried.finished_at_us,
    )


def refused(
    command: RequestStep, place: Place, code: str, message: str, now_us: int
) -> StepFinished:
    """Write the end of a step for which nothing was called."""
    outcome = Rejected(code=code, message=message)
    carried = Carried(outcome, (), None, None, command.connection_id, now_us, now_us)
    return step_finished(command, place, carried)


def record_of(finished: StepFinished, encoded: bytes | None = None) -> bytes:
    """Give what the ledger keeps: the result, without a large state: the command brings it again.

    Args:
        finished: The result.
        encoded: The same as bytes, where it was encoded already.
    """
    if len(finished.state.data) > KEPT_STATE_MAX:
        return codec.encode(replace(finished, state=Payload(b"")))
    return codec.encode(finished) if encoded is None else encoded


def from_record(record: bytes, command: RequestStep, place: Place) -> StepFinished:
    """Answer a command that came again from what the ledger kept."""
    kept = codec.decode_as(StepFinished, record)
    return replace(
        kept,
        state=command.state,
        command=place,
        from_ledger=True,
        requested_at_us=command.requested_at_us,
    )


def excerpt(value: object) -> object:
    """Shorten a JSON value for the timeline: whole where it is small, else the first characters."""
    if value is None:
        return None
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    if len(text) <= EXCERPT_CHARS_MAX:
        return value
    return f"{text[:EXCERPT_CHARS_MAX]}… ({len(text)} characters)"


def told(request: Request, url: str) -> dict[str, Any]:
    """Describe a request for the timeline: everything but the credential."""
    body: Any = request.json
    if request.form is not None:
        body = dict(request.form)
    elif request.content is not None:
        body = f"{len(request.content)} bytes"
    elif request.upload is not None:
        body = f"{request.upload.size} bytes of {request.upload.content_type.partition(';')[0]}"
    return {"method": request.method, "url": url, "body": excerpt(body)}
